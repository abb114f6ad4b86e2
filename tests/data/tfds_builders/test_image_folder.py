import os
import re
import shutil

import numpy as np
import pytest

from delg_jax.data import open_training
from delg_jax.errors import UserError
from tests.data.tfds_builders.published import jpeg, settings


@pytest.fixture
def root(tmp_path):
    for number, (name, count) in enumerate({"bridge": 10, "tower": 2, "gate": 1}.items()):
        for image in range(count):
            path = tmp_path / "my photos" / name / f"{image} ü.JPG"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(jpeg(100 * number + image))
    (tmp_path / "my photos" / "bridge" / "notes.txt").write_text("no image")
    return tmp_path / "my photos"


def test_classes_are_the_folders(tmp_path, root):
    data = open_training(settings(root, tmp_path / "tfds", "image_folder"))
    assert data.classes == ["bridge", "gate", "tower"]
    assert np.bincount(data.train.labels).tolist() == [8, 1, 1]
    assert np.bincount(data.validation.labels).tolist() == [2, 0, 1]
    for source in (data.train, data.validation):
        for position, name in enumerate(source.names):
            assert source.read(position) == (root / name).read_bytes()
            assert name.split("/")[0] == data.classes[source.labels[position]]


def folders(tmp_path):
    return sorted(path.name for path in (tmp_path / "tfds" / "image_folder").glob("my photos-*"))


def test_a_folder_that_moved_is_found_again(tmp_path, root, caplog):
    before = open_training(settings(root, tmp_path / "tfds", "image_folder")).train
    named = folders(tmp_path)
    moved = tmp_path / "mount" / root.name
    moved.parent.mkdir()
    shutil.copytree(root, moved)  # with other times
    shutil.rmtree(root)
    caplog.set_level("INFO", "delg_jax")
    after = open_training(settings(moved, tmp_path / "tfds", "image_folder")).train
    assert (after.names, after.read(3)) == (before.names, before.read(3))
    assert folders(tmp_path) == named
    assert f"is what was prepared as {named[0]}" in caplog.text
    link = tmp_path / "link"
    link.symlink_to(moved)
    for other in (f"{moved}/", str(link), os.path.relpath(moved)):
        open_training(settings(other, tmp_path / "tfds", "image_folder"))
        assert folders(tmp_path) == named


def test_a_folder_that_moved_and_changed_is_prepared_again(tmp_path, root):
    open_training(settings(root, tmp_path / "tfds", "image_folder"))
    moved = tmp_path / "mount" / root.name
    moved.parent.mkdir()
    root.rename(moved)
    (moved / "tower" / "0 ü.JPG").write_bytes(jpeg(9))
    data = open_training(settings(moved, tmp_path / "tfds", "image_folder"))
    assert len(folders(tmp_path)) == 2
    read = {n: s.read(i) for s in (data.train, data.validation) for i, n in enumerate(s.names)}
    assert read["tower/0 ü.JPG"] == jpeg(9)


def test_without_a_folder_the_only_one_that_is_prepared_is_used(tmp_path, root):
    before = open_training(settings(root, tmp_path / "tfds", "image_folder"))
    root.rename(tmp_path / "away")
    after = open_training(settings("", tmp_path / "tfds", "image_folder"))
    assert (after.classes, after.train.names) == (before.classes, before.train.names)
    # Another seed is another preparation, of which there is none
    with pytest.raises(UserError, match=r"config\.data\.root = ''"):
        open_training(settings("", tmp_path / "tfds", "image_folder", split_seed=1))
    (tmp_path / "away" / "gate").rename(tmp_path / "away" / "arch")
    open_training(settings(tmp_path / "away", tmp_path / "tfds", "image_folder"))
    with pytest.raises(
        UserError, match=r"config\.data\.root = '': .*: away-\w{8}, my photos-\w{8}"
    ):
        open_training(settings("", tmp_path / "tfds", "image_folder"))


def test_hidden_names_are_left_out_and_deeper_images_are_found(tmp_path, root, caplog):
    for name in (".ipynb_checkpoints/0.jpg", "bridge/._0.jpg", "@eaDir/0.jpg", "0.jpg"):
        path = root / name
        path.parent.mkdir(exist_ok=True)
        path.write_bytes(jpeg(7))
    (root / "arch" / "north").mkdir(parents=True)
    (root / "arch" / "north" / os.fsdecode(b"caf\xe9.JPE")).write_bytes(jpeg(8))
    (root / "empty").mkdir()
    data = open_training(settings(root, tmp_path / "tfds", "image_folder"))
    assert data.classes == ["arch", "bridge", "gate", "tower"]
    assert "arch/north/caf\\xe9.JPE" in data.train.names
    assert len(data.train) + len(data.validation) == 14
    left_out, empty = (message for message in caplog.messages if message.startswith(str(root)))
    assert re.match(rf"{root}: 14 images; .*3 hidden, 1 .*, 1 .*\(\.txt 1\)$", left_out)
    assert re.match(f"{root}: 1 .*: empty$", empty)


def test_odd_bytes_in_the_name_of_the_folder(tmp_path, root):
    odd = root.rename(tmp_path / os.fsdecode(b"caf\xe9"))
    data = open_training(settings(odd, tmp_path / "tfds", "image_folder"))
    assert data.train.read(0) == (odd / data.train.names[0]).read_bytes()


def test_two_folders_of_one_name_are_two_data_sets(tmp_path, root):
    first = open_training(settings(root, tmp_path / "tfds", "image_folder"))
    other = tmp_path / "elsewhere" / root.name
    shutil.copytree(root, other)
    (other / "gate").rename(other / "arch")
    second = open_training(settings(other, tmp_path / "tfds", "image_folder"))
    assert (first.classes[1], second.classes[0]) == ("gate", "arch")
    assert open_training(settings(root, tmp_path / "tfds", "image_folder")).classes[1] == "gate"


@pytest.mark.parametrize("root", ["", "absent", "empty"])
def test_a_folder_without_images_is_refused(tmp_path, root):
    (tmp_path / "empty" / "class").mkdir(parents=True)
    path = root and tmp_path / root
    with pytest.raises(UserError, match=r"config\.data\.root = '"):
        open_training(settings(path, tmp_path / "tfds", "image_folder"))
