from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from delg_jax.cli.main import main
from delg_jax.rerank.spatial_verification import Verification
from delg_jax.retrieval import pair_matching

CONFIG = f"--config={Path(__file__).parents[2] / 'configs' / 'quickstart.py'}:smoke"


@pytest.fixture
def calls(monkeypatch):
    noted = []

    def match_images(config, *arguments):
        noted.append(arguments)
        pictures = np.zeros((20, 30, 3), np.uint8), np.zeros((10, 10, 3), np.uint8)
        locations = np.zeros((6, 2)), np.ones((6, 2))
        transform = np.array([[1.0, 2, 3], [4, 5, 6]]) * config.rerank.sp.hypotheses
        found = Verification(np.zeros((6, 2), int), np.arange(6) < 5, transform)
        return pair_matching.ImagePair(pictures, locations, found)

    monkeypatch.setattr(pair_matching, "match_images", match_images)
    return noted


def test_counts_and_transformation_are_printed_and_drawn(calls, capsys, tmp_path):
    fields = ["--config.rerank.sp.hypotheses=1", "--config.rerank.sp.min_inliers=5"]
    assert main(["match", "a.jpg", "b.jpg", CONFIG, *fields, f"--workdir={tmp_path}"]) == 0
    assert calls == [(str(tmp_path), "a.jpg", "b.jpg", False)]
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["matches  6", "inliers  5 (verified)"]
    assert [[float(v) for v in line.split()] for line in lines[3:5]] == [[5, 4, 6], [2, 1, 3]]
    assert lines[5] == f"drawing  {tmp_path / 'match.png'}"
    with Image.open(tmp_path / "match.png") as drawing:
        assert drawing.size == (48, 20)


def test_too_few_inliers_and_no_transformation_are_reported(calls, capsys, tmp_path):
    fields = ["--config.rerank.sp.min_inliers=6", "--config.rerank.sp.hypotheses=0"]
    flags = [f"--workdir={tmp_path}", f"--output={tmp_path / 'b.jpg'}"]
    assert main(["match", "a.jpg", "b.jpg", CONFIG, *fields, *flags]) == 0
    out = capsys.readouterr().out
    assert "inliers  5 (not verified: fewer than 6)" in out
    assert "transformation" not in out
    assert (tmp_path / "b.jpg").exists()


@pytest.mark.parametrize(
    ("arguments", "start"),
    [
        ([], "delg match"),
        (["a.jpg"], "delg match = 'a.jpg': "),
        (["a.jpg", "b.jpg", "c.jpg"], "delg match = 'a.jpg b.jpg c.jpg': "),
        (["a.jpg", "b.jpg", "--output=a.gif"], "--output = 'a.gif': "),
    ],
)
def test_mistakes_are_one_line(calls, capsys, tmp_path, arguments, start):
    assert main(["match", CONFIG, f"--workdir={tmp_path}", *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"delg: {start}")
    assert error.count("\n") == 1
    assert calls == []


def test_a_picture_that_is_not_there_is_one_line(capsys, tmp_path):
    arguments = [str(tmp_path / "absent.jpg"), "b.jpg", f"--workdir={tmp_path}"]
    assert main(["match", CONFIG, *arguments]) == 2
    error = capsys.readouterr().err
    assert error.startswith("delg: A = ")
    assert error.count("\n") == 1
