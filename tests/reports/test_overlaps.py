"""Copies and crops of test pictures among training images are found and written."""

import csv
import re

import pytest
from PIL import Image

from delg_jax import configuration
from delg_jax.cli.main import main
from delg_jax.data import exclusion
from delg_jax.errors import UserError
from delg_jax.features.experiment import extract
from delg_jax.reports import overlaps
from delg_jax.training import trained_network
from delg_jax.workdir import root_of
from tests import photographs, tiny

LEAST = 12  # inliers here, of pictures of 96 by 112 pixels


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """Configuration and workdir of eight training images, and a folder of test pictures."""
    root = tmp_path_factory.mktemp("overlaps")
    data = photographs.make_revisited(root / "data")
    config = configuration.override(
        tiny.revisited_config(data), {"data.name": "images", "data.root": str(data / "jpg")}
    )
    tests = root / "tests"
    tests.mkdir()
    near = Image.open(data / "jpg" / "place1_near.jpg")
    near.save(tests / "copy.jpg", quality=80)
    photographs.save(tests / "other.jpg", photographs.draw(99, 96, 112))
    (tests / "broken.jpg").write_bytes(b"no picture")
    for query in (data / "jpg").glob("query*"):
        query.unlink()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(
            trained_network,
            "pretrained_variables",
            lambda module, *_, **__: tiny.random_variables(module),
        )
        extract(config, root_of(root / "run"))  # so that each test can run alone
        yield config, root / "run", tests


@pytest.mark.parametrize("method", ["local+sp", "global"])
def test_a_copy_and_its_crop_are_found(place, tmp_path, method):
    config, run, tests = place
    written = overlaps.write_overlaps(
        config, run, str(tests), tmp_path / "out", method, 8, LEAST, pictures=1
    )
    with (tmp_path / "out" / "overlap.csv").open() as file:
        rows = list(csv.DictReader(file))
    found = [row for row in rows if row["query"] == "copy.jpg"]
    assert [row["image"].removesuffix(".jpg") for row in found[:2]] == ["place1_near", "place1_far"]
    inliers = [int(row["inliers"]) for row in found]
    assert inliers == sorted(inliers, reverse=True)
    assert inliers[-1] >= LEAST
    assert (written.queries, written.skipped) == (3, 1)
    assert written.images == len({row["image"] for row in rows})
    listed = [line for _, line in exclusion._read(tmp_path / "out" / "exclude.txt")]
    assert listed == sorted({f"image:{row['image']}" for row in rows})
    page = (tmp_path / "out" / "overlap.html").read_text()
    (picture,) = re.findall(r'src="data:image/jpeg;base64,[\w+/=]{1000,}"', page)
    assert picture
    assert f"place1_near.jpg: {inliers[0]} inliers" in page or "place1_near: " in page


def test_the_verb_takes_the_configuration_of_the_features(place, tmp_path, capsys):
    _, run, tests = place
    store = run / "features" / "images"
    argv = [str(store), str(tests), f"--output={tmp_path}", f"--min_inliers={LEAST}"]
    assert main(["overlap", *argv, "--pictures=0"]) == 0
    assert "3 test pictures, 1 of them unreadable" in capsys.readouterr().out
    assert "<img" not in (tmp_path / "overlap.html").read_text()


def test_mistakes_are_one_line(place, tmp_path, capsys):
    _, run, tests = place
    assert main(["overlap", str(tmp_path), str(tests)]) == 2
    assert f" = '{tmp_path}': " in capsys.readouterr().err
    assert main(["overlap", str(run)]) == 2
    assert "TRAIN_STORE QUERIES" in capsys.readouterr().err
    assert main(["overlap", str(run), str(tests), "--method=nonsense"]) == 2
    assert "--method = 'nonsense'" in capsys.readouterr().err


def test_pictures_none_of_which_can_be_read_are_refused(place, tmp_path):
    config, run, tests = place
    with pytest.raises(UserError, match="QUERIES = .*broken.jpg"):
        overlaps.write_overlaps(config, run, str(tests / "broken.jpg"), tmp_path / "out")
    assert not (tmp_path / "out").exists()
