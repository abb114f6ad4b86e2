import json

import pytest

from delg_jax.cli.main import main, run_experiment
from experiments.local_to_global import scale
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
