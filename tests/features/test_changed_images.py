"""Extraction of an experiment whose images, boxes or places have changed since."""

import json
import os
import shutil

import jax
import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.experiment import extract
from delg_jax.features.extractor import Extractor
from tests.folders import contents, read_only
from tests.photographs import draw, make_revisited, save
from tests.tiny import retrieval_config

PROJECTION = {"pca_dim": 3, "pca_images": 2}


@pytest.fixture(scope="module")
def extracted(tmp_path_factory):
    """Photographs, and the workdirs of their features without and with a projection."""
    root = tmp_path_factory.mktemp("extracted")
    photographs = make_revisited(root / "photographs")
    extract(at(photographs), root / "run")
    extract(at(photographs, **PROJECTION), root / "projected")
    return root


@pytest.fixture
def photographs(tmp_path, extracted):
    """A copy of the photographs; its files have the times of the first ones."""
    return shutil.copytree(extracted / "photographs", tmp_path / "photographs")


@pytest.fixture
def run(tmp_path, extracted, photographs):
    """A workdir with the features of the photographs."""
    return shutil.copytree(extracted / "run", tmp_path / "run")


@pytest.fixture
def projected_run(tmp_path, extracted, photographs):
    """As `run`, with a projection."""
    return shutil.copytree(extracted / "projected", tmp_path / "run")


@pytest.fixture
def seen(monkeypatch):
    """Pictures that went through the network."""
    pictures = []
    original = Extractor.__call__

    def call(self, images):
        pictures.extend(images)
        return original(self, images)

    monkeypatch.setattr(Extractor, "__call__", call)
    return pictures


def at(root, **fields):
    """The configuration of the data set in a folder, with some fields of `extract`."""
    config = retrieval_config(root).copy_and_resolve_references().unlock()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.extract.update(fields)
    return config


def with_truth(root, change):
    """The data set with another ground truth."""
    path = root / "gnd_drawn.json"
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))
    return root


def assert_equal_features(one, other):
    for part in ("database", "queries"):
        stores = getattr(one, part), getattr(other, part)
        np.testing.assert_allclose(*(s.global_descriptors() for s in stores), atol=1e-5)
        for a, b in zip(*(s.local_features(0) for s in stores), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-3)


def test_one_picture_with_two_boxes_is_two_queries(photographs, tmp_path):
    boxes = [0, 0, 56, 96], [56, 0, 112, 96]

    def twice(content):
        content["qimlist"] = ["query0", "query0"]
        content["gnd"] = [{**content["gnd"][0], "bbx": box} for box in boxes]

    def copied(content):
        twice(content)
        content["qimlist"] = ["query0", "copy"]

    one = extract(at(with_truth(photographs, twice)), tmp_path / "one")
    shutil.copy(photographs / "jpg" / "query0.jpg", photographs / "jpg" / "copy.jpg")
    other = extract(at(with_truth(photographs, copied)), tmp_path / "other")
    assert_equal_features(one, other)
    first, second = one.queries.global_descriptors()
    assert abs(first @ second) < 0.999


def test_where_data_lies_decides_nothing(photographs, run, tmp_path, monkeypatch, seen):
    first = extract(at(photographs), run)
    before = contents(run)
    monkeypatch.chdir(tmp_path)
    shutil.move(photographs, tmp_path / "elsewhere")
    for root in (f"{tmp_path / 'elsewhere'}/", "elsewhere", "./elsewhere/../elsewhere"):
        extract(at(root), run)
    assert contents(run) == before
    shutil.copytree(tmp_path / "elsewhere", tmp_path / "copy")
    again = extract(at("copy"), run)
    assert again.database.digest() == first.database.digest()
    other = at("copy")
    other.data.ground_truth = "gnd_other.json"
    (tmp_path / "copy" / "gnd_drawn.json").rename(tmp_path / "copy" / "gnd_other.json")
    extract(other, run)
    assert seen == []


def test_replaced_photographs_are_extracted_again(photographs, run, tmp_path, seen, caplog):
    caplog.set_level("INFO", "delg_jax")
    before = extract(at(photographs), run)
    for name in ("place1_far", "place3_near"):
        save(photographs / "jpg" / f"{name}.jpg", draw(len(name), 80, 96))
    after = extract(at(photographs), run)
    assert len(seen) == 2
    assert caplog.text.count("first place1_far") == 1
    assert after.database.digest() != before.database.digest()
    assert after.queries.digest() == before.queries.digest()
    assert_equal_features(after, extract(at(photographs), tmp_path / "new"))


def test_another_box_gives_other_features(photographs, run, tmp_path, seen):
    with_truth(photographs, lambda content: content["gnd"][2].update(bbx=[0, 0, 60, 60]))
    after = extract(at(photographs), run)
    assert [picture.shape for picture in seen] == [(60, 60, 3)]
    assert_equal_features(after, extract(at(photographs), tmp_path / "new"))


def test_the_next_run_extracts_what_a_killed_one_did_not(photographs, run, tmp_path, monkeypatch):
    for name in ("place1_far", "place3_near"):
        save(photographs / "jpg" / f"{name}.jpg", draw(len(name), 80, 96))
    with monkeypatch.context() as patch:
        patch.setattr(Extractor, "__call__", lambda *_: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            extract(at(photographs), run)
    after = extract(at(photographs), run)
    assert_equal_features(after, extract(at(photographs), tmp_path / "new"))


def test_a_projection_of_images_that_changed_is_refused(photographs, projected_run, tmp_path):
    projected = at(photographs, **PROJECTION)
    before = contents(projected_run)
    save(photographs / "jpg" / "place0_near.jpg", draw(77, 96, 112))  # the first of the sample
    with pytest.raises(UserError, match=r"pca\.npz.* 1 .*place0_near.*--overwrite"):
        extract(projected, projected_run)
    assert contents(projected_run) == before
    again = extract(projected, projected_run, overwrite=True)
    assert_equal_features(again, extract(projected, tmp_path / "new"))


def test_queries_follow_the_projection_of_a_new_database(photographs, projected_run, tmp_path):
    projected = at(photographs, **PROJECTION)
    shutil.rmtree(projected_run / "features" / "database")
    save(photographs / "jpg" / "place0_near.jpg", draw(77, 96, 112))
    again = extract(projected, projected_run)
    assert_equal_features(again, extract(projected, tmp_path / "new"))


def test_a_projection_stays_when_another_image_changes(photographs, projected_run, seen):
    projected = at(photographs, **PROJECTION)
    before = extract(projected, projected_run).database.read_pca()
    save(photographs / "jpg" / "place1_near.jpg", draw(77, 96, 112))
    after = extract(projected, projected_run).database.read_pca()
    jax.tree.map(np.testing.assert_array_equal, after, before)
    assert len(seen) == 1


def test_whole_features_are_read_from_a_read_only_place(photographs, run):
    first = extract(at(photographs), run)
    with read_only(run):
        again = extract(at(photographs), run)
        assert again.database.digest() == first.database.digest()
        os.utime(photographs / "jpg" / "query1.jpg")
        assert len(extract(at(photographs), run).queries) == 4
        save(photographs / "jpg" / "query1.jpg", draw(77, 96, 112))
        with pytest.raises(UserError, match="Read-only file system"):
            extract(at(photographs), run)
