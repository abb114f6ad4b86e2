import json
from types import SimpleNamespace

import numpy as np
import pytest

from configs import default
from delg_jax.cli.main import main, run_experiment
from delg_jax.data.sources import FileSource, TrainingData
from experiments.local_to_global import scale
from tests import stores
from tests.photographs import make_folder, make_revisited
from tests.tiny import command_line, retrieval_config


def test_exponents_are_those_of_the_times():
    rows = [
        {"images": n, "build_seconds": n / 10, "milliseconds": {"local": 3 * n**0.5, "one": 1.0}}
        for n in (100, 1000, 10000)
    ]
    found = scale.exponents(rows)
    assert found == pytest.approx({"local": 0.5, "one": 0.0, "build": 1.0}, abs=1e-6)
    assert scale.exponents(rows[:1]) == {}


def test_rendered_photographs_are_extracted_once_beside_real_ones(tmp_path, rng, monkeypatch):
    folder = make_folder(tmp_path / "others", classes=2, train=2, validation=1)
    names = [f"class_{label}/{number}.jpg" for label in (0, 1) for number in (0, 1)]
    drawn = FileSource(folder / "train", names, np.zeros(4, np.int64))
    opened, described = [], []

    class Model:
        def features(self, picture):
            described.append(picture)
            return stores.features(rng, 5)

    def open_training(data):
        opened.append((data.name, data.tfds_dir))
        return TrainingData(drawn, drawn, [])

    monkeypatch.setattr(scale, "open_training", open_training)
    monkeypatch.setattr(scale.delg_jax, "load", lambda root: Model())
    config = default.get_config()
    config.search.max_features = 4
    extracted = SimpleNamespace(weights="w", database=SimpleNamespace(digest=lambda: "d"))
    values = SimpleNamespace(photographs=str(folder), photographs_used=3, rendered=2)
    for _ in range(2):
        found = scale._sources(tmp_path, config.lock(), extracted, tmp_path / "work", values)
        assert {name: len(store) for name, store in found.items()} == {
            "photographs": 3,
            "rendered": 2,
        }
    assert opened[0] == ("synthetic", str(tmp_path / "work" / "rendered"))
    paths, contents = described[:3], described[3:]
    assert all(path.is_file() for path in paths)
    assert contents == [drawn.read(0), drawn.read(3)]


@pytest.mark.slow
def test_it_runs_on_a_workdir(tmp_path, capsys, monkeypatch):
    folder = make_revisited(tmp_path / "photographs", places=3)
    others = make_folder(tmp_path / "others", classes=2, train=2, validation=1)
    config = retrieval_config(folder)
    assert main(["extract", *command_line(config), f"--workdir={tmp_path / 'run'}"]) == 0
    flags = [
        f"--features={tmp_path / 'run'}",
        f"--photographs={others}",
        f"--work={tmp_path / 'work'}",
        f"--results={tmp_path}",
        "--sizes=6,20",
        "--exact_up_to=6",
        "--max_features=30",
        "--field=search.asmk.words=4",
        "--field=search.candidates=6",
        "--field=search.idf_images=6",
        "--field=search.idf_of=features",
        "--field=search.idf_power=1.0",
        "--field=rerank.mds.short_list=4",
    ]
    assert run_experiment(scale, flags) == 0
    result = tmp_path / "local_to_global_scale.json"
    rows = json.loads(result.read_text())["rows"]
    assert [row["images"] for row in rows] == [6, 20]
    assert ["exact" in row["map"] for row in rows] == [True, False]
    assert rows[0]["map"]["local"] == rows[0]["map"]["exact"]  # all images are candidates
    assert rows[0]["found_of_first"] == 1.0
    stages = {"global", "global+sp", "candidates", "local", "pairs", "local+mds"}
    assert stages < set(rows[1]["milliseconds"])
    monkeypatch.setattr(scale, "measure", None)  # what is measured is not measured again
    assert run_experiment(scale, flags) == 0
    assert json.loads(result.read_text())["rows"] == rows
    capsys.readouterr()
    for wrong in ("--sizes=3", "--field=search.candidates=0", "--field=search.nothing=1"):
        assert run_experiment(scale, [*flags, wrong]) == 2
        assert wrong.split("=")[0] in capsys.readouterr().err
