import json

import numpy as np
import pytest

from delg_jax.cli.main import run_experiment
from delg_jax.data import open_training
from experiments.benchmarks import training_at_scale
from tests.data.tfds_builders.published import settings

SIZE = training_at_scale.Size(40, 15, 20, 2, 1, 2, 8)


def test_the_files_have_the_published_layout_and_all_classes(tmp_path, monkeypatch):
    monkeypatch.setattr(training_at_scale, "_TAR_IMAGES", 16)
    training_at_scale.write_files(tmp_path / "files", SIZE)
    archives = sorted(path.name for path in (tmp_path / "files" / "train").iterdir())
    assert archives[:3] == ["images_000.tar", "images_001.tar", "images_002.tar"]
    data = settings(tmp_path / "files", tmp_path / "tfds", "gldv2_clean")
    found = open_training(data)
    assert len(found.classes) == 15
    assert len(found.train) + len(found.validation) == 40
    assert len({found.train.read(index) for index in range(len(found.train))}) == len(found.train)
    before = (tmp_path / "files" / "train.csv").stat().st_mtime_ns
    training_at_scale.write_files(tmp_path / "files", SIZE)
    assert (tmp_path / "files" / "train.csv").stat().st_mtime_ns == before


def test_the_last_step_is_read_while_it_is_written(tmp_path):
    assert training_at_scale.last_step(tmp_path) == 0
    (tmp_path / "logs").mkdir()
    path = tmp_path / "logs" / "metrics.jsonl"
    path.write_text('{"step": 5}\n{"step": 10}\n{"st')
    assert training_at_scale.last_step(tmp_path) == 10


def test_sizes_that_cannot_be_are_one_line(tmp_path, capsys):
    folders = [f"--workdir={tmp_path}", f"--results={tmp_path}"]
    for flag, named in (("--images=5", "--images = 5: "), ("--processes=3", "--processes = 3: ")):
        assert run_experiment(training_at_scale, [*folders, flag]) == 2
        assert named in capsys.readouterr().err
    (tmp_path / "size.json").write_text("{}")
    assert run_experiment(training_at_scale, folders) == 2
    assert "another size" in capsys.readouterr().err


@pytest.mark.slow
def test_interrupted_processes_learn_what_undisturbed_ones_do(tmp_path, capsys):
    flags = [f"--workdir={tmp_path / 'runs'}", f"--results={tmp_path}", "--size=quick"]
    assert run_experiment(training_at_scale, flags) == 0
    found = json.loads((tmp_path / "training_at_scale.json").read_text())
    runs = found["runs"]
    assert runs["interrupted"]["difference"] == 0
    assert 0 < runs["other processes"]["difference"] < 1e-3
    for one in runs["interrupted"]["interruptions"]:
        assert one["kind"] == "killed" or one["seconds_to_checkpoint"] > 0
        assert np.any(one["statuses"])
    text = (tmp_path / "training_at_scale.md").read_text()
    assert "| interrupted | 2 |" in text
    assert text == capsys.readouterr().out
