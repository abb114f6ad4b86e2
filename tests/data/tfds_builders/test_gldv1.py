import csv
import pickle

import numpy as np
import pytest
import tensorflow_datasets as tfds

from delg_jax.data import images, open_training
from delg_jax.data.tfds_builders import GoogleLandmarksV1, prepare
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import (
    contents,
    image_id,
    jpeg,
    labels,
    make_gldv1,
    place,
    settings,
)
from tests.photographs import truncate


def builder(folder):
    return GoogleLandmarksV1(data_dir=str(folder), file_format="array_record")


@pytest.fixture
def root(tmp_path):
    make_gldv1(tmp_path / "raw")
    return tmp_path / "raw"


def test_records_hold_the_files_and_dense_labels(tmp_path, root):
    images_ = make_gldv1(root)
    data = open_training(settings(root, tmp_path / "tfds", "gldv1"))
    assert data.classes == ["7", "17", "27"]
    found = {**labels(data.train), **labels(data.validation)}
    assert found == {name: (landmark - 7) // 10 for name, landmark in images_.items()}
    assert np.bincount(data.train.labels).tolist() == [4, 1, 8]
    assert np.bincount(data.validation.labels).tolist() == [1, 0, 2]
    for source in (data.train, data.validation):
        for position, name in enumerate(source.names):
            path = (root / "train").joinpath(*name[:3], f"{name}.jpg")
            assert source.read(position) == path.read_bytes()
            assert tuple(source.sizes[position]) == images.decode(path.read_bytes()).shape[:2]


def test_the_source_can_be_pickled(tmp_path, root):
    train = open_training(settings(root, tmp_path / "tfds", "gldv1")).train
    copy = pickle.loads(pickle.dumps(train))
    assert [copy.read(n) for n in range(len(copy))] == [train.read(n) for n in range(len(train))]


def test_all_features_are_read_by_tfds_alone(tmp_path, root):
    prepared = prepare(builder(tmp_path / "tfds"), str(root))
    assert prepared.info.splits["train"].num_examples == 13
    records = prepared.as_data_source("train")
    assert records[0]["image"].shape == (20, 24, 3)
    assert sorted(records[0]) == ["image", "label", "name"]
    assert tfds.builder_from_directory(str(prepared.data_path)).info.splits.keys() == {
        "train",
        "validation",
    }


def test_the_relabelling_lies_beside_the_records(tmp_path, root):
    prepared = prepare(builder(tmp_path / "tfds"), str(root))
    with open(prepared.data_path / "relabelling.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 16
    for row in rows:
        assert int(row["landmark_id"]) == 10 * int(row["label"]) + 7
        with open(prepared.data_path / f"{row['split']}.csv") as file:
            assert any(
                line.startswith(f"{row['id']},{row['label']},20,24,") for line in file.readlines()
            )


def test_flat_images_are_found_too(tmp_path, root):
    for path in (root / "train").glob("*/*/*/*.jpg"):
        path.rename(root / "train" / path.name)
    assert len(open_training(settings(root, tmp_path / "tfds", "gldv1")).train) == 13


def test_prepared_twice_the_records_are_equal_for_any_order_of_the_rows(tmp_path, root):
    one = prepare(builder(tmp_path / "one"), str(root))
    header, *rows = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([header, *reversed(rows)]))
    other = prepare(builder(tmp_path / "other"), str(root))
    assert contents(one) == contents(other)
    assert one.data_path != other.data_path
    assert set(contents(one)) == {
        *("train", "validation"),
        *("relabelling.csv", "source.csv", "train.csv", "validation.csv"),
    }


def test_another_seed_or_share_is_another_data_set(tmp_path, root):
    names = {}
    for key, fields in {"a": {}, "b": {"split_seed": 1}, "c": {"validation_share": 0.5}}.items():
        data = open_training(settings(root, tmp_path / "tfds", "gldv1", **fields))
        names[key] = sorted(data.validation.names)
    assert len({str(value) for value in names.values()}) == 3
    assert [len(names[key]) for key in "abc"] == [3, 3, 8]


def test_once_prepared_the_raw_files_are_not_needed(tmp_path, root):
    before = open_training(settings(root, tmp_path / "tfds", "gldv1")).train
    root.rename(tmp_path / "elsewhere")
    after = open_training(settings("", tmp_path / "tfds", "gldv1")).train
    assert after.names == before.names
    assert after.read(3) == before.read(3)


def spoil(root):
    """One image absent, one truncated, one text, one too small; returns their ids."""
    names = [image_id(number) for number in (6, 7, 8, 9)]
    paths = [(root / "train").joinpath(*name[:3], f"{name}.jpg") for name in names]
    paths[0].unlink()
    truncate(paths[1])
    paths[2].write_text("<html>")
    place(root / "train", names[3], jpeg(0, 12, 12))
    return names


def test_bad_images_are_skipped_listed_and_counted(tmp_path, root, caplog):
    names = spoil(root)
    data = open_training(settings(root, tmp_path / "tfds", "gldv1", max_skipped=4))
    left = {*data.train.names, *data.validation.names}
    assert len(left) == 12
    assert not left & set(names)
    (listed,) = (tmp_path / "tfds").rglob("skipped.csv")
    rows = dict(line.split(",", 1) for line in listed.read_text().splitlines()[1:])
    assert set(rows) == set(names)
    assert rows[names[0]] == "No such file or directory"
    assert "truncated" in rows[names[1]].lower()
    assert "not an image" in rows[names[2]]
    assert "under 16" in rows[names[3]]
    assert "4 images" in caplog.text


def test_too_many_bad_images_end_the_preparation(tmp_path, root):
    spoil(root)
    names = r"config\.data\.max_skipped = 3: 4 .*skipped\.csv"
    with pytest.raises(UserError, match=names):
        open_training(settings(root, tmp_path / "tfds", "gldv1", max_skipped=3))
    assert len(list((tmp_path / "tfds").rglob("skipped.csv"))) == 1
    assert not list((tmp_path / "tfds").rglob("*.array_record*"))


def test_a_killed_preparation_leaves_nothing_under_the_final_name(tmp_path, root, monkeypatch):
    decode, count = images.decode, iter(range(10))

    def interrupted(*arguments):
        if next(count) == 9:
            raise KeyboardInterrupt
        return decode(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr(images, "decode", interrupted)
        with pytest.raises(KeyboardInterrupt):
            prepare(builder(tmp_path / "tfds"), str(root))
    assert not list((tmp_path / "tfds").rglob("1.0.0"))
    assert prepare(builder(tmp_path / "tfds"), str(root)).info.splits["train"].num_examples == 13


@pytest.mark.parametrize(
    ("line", "names"),
    [
        ("abcd,u,x", "landmark_id .*'x'"),
        ("abcd,u", "3 fields, .*2"),
        ("../../etc,u,3", r"id .*'\.\./\.\./etc'"),
        (f"{image_id(0)},u,3", rf"id '{image_id(0)}' .*line 2"),
    ],
)
def test_a_wrong_line_is_named(tmp_path, root, line, names):
    lines = (root / "train.csv").read_text().splitlines()
    (root / "train.csv").write_text("\n".join([*lines[:3], line, *lines[3:]]))
    with pytest.raises(UserError, match=rf"csv file = '.*train\.csv, line 4': .*{names}"):
        open_training(settings(root, tmp_path / "tfds", "gldv1"))
    assert not list((tmp_path / "tfds").rglob("1.0.0"))


def test_without_files_there_is_one_error(tmp_path, root):
    with pytest.raises(UserError, match=r"config\.data\.root = ''"):
        open_training(settings("", tmp_path / "tfds", "gldv1"))
    (root / "train.csv").unlink()
    with pytest.raises(UserError, match=r"train\.csv': .*No such file"):
        open_training(settings(root, tmp_path / "tfds", "gldv1"))
