import json

import pytest

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import input_rates
from tests import photographs


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "images").mkdir()
    for number in range(3):
        photographs.save(tmp_path / "images" / f"{number}.jpg", photographs.draw(number, 90, 120))
    return tmp_path


def test_every_implementation_is_measured(capsys, folder):
    flags = [f"--images={folder / 'images'}", f"--results={folder}", "--size=16", "--repeats=1"]
    assert run_experiment(input_rates, flags) == 0
    content = json.loads((folder / "input_rates.json").read_text())
    assert content["median_shape"] == [90, 120]
    assert content["files"] == 3
    rates = content["images_per_second"]
    names = ["decode", "decode, crop, resize", "decode as large as needed, crop, resize"]
    assert list(rates)[:3] == names
    assert all(0 < row["low"] <= row["median"] <= row["high"] for row in rates.values())
    assert (folder / "input_rates.md").read_text() == capsys.readouterr().out


def test_a_folder_without_images_is_one_line(capsys, tmp_path):
    assert run_experiment(input_rates, [f"--images={tmp_path}"]) == 2
    error = capsys.readouterr().err
    assert "--images" in error
    assert error.count("\n") == 1
