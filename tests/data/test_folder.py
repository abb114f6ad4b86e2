import os
import re
import shutil

import numpy as np
import pytest

from delg_jax.data import FileSource, folder
from delg_jax.errors import UserError
from tests.photographs import draw, make_folder, save
from tests.tiny import training_config


def opened(root):
    return folder.training(training_config(root).data)


def test_classes_are_the_folders_in_order(tmp_path):
    found = opened(make_folder(tmp_path, classes=3, train=4, validation=2))
    assert found.classes == ["class_0", "class_1", "class_2"]
    assert found.train.labels.tolist() == [0] * 4 + [1] * 4 + [2] * 4
    assert found.validation.labels.tolist() == [0, 0, 1, 1, 2, 2]
    assert found.train.names[5] == "class_1/1.jpg"
    assert len(found.validation) == 6
    expected = (tmp_path / "train" / "class_1" / "1.jpg").read_bytes()
    assert found.train.read(5) == expected


def test_images_are_sorted_by_class_before_their_paths(tmp_path):
    for name in ("train/a b/0.jpg", "train/a/1.jpg", "validation/a/2.jpg"):
        save(tmp_path / name, draw(0))
    found = opened(tmp_path)
    assert found.train.names == ["a/1.jpg", "a b/0.jpg"]
    assert found.train.labels.tolist() == [0, 1]


def test_only_images_count(tmp_path):
    root = make_folder(tmp_path, classes=2, train=1, validation=1)
    (root / "train" / "class_0" / "notes.txt").write_text("no image")
    (root / "train" / "README").write_text("no class")
    save(root / "train" / "class_0" / "another.PNG", draw(9))
    found = opened(root)
    assert found.train.names == ["class_0/0.jpg", "class_0/another.PNG", "class_1/0.jpg"]


def test_a_class_may_lack_validation_images(tmp_path):
    root = make_folder(tmp_path, classes=3, train=1, validation=1)
    for path in (root / "validation" / "class_1").iterdir():
        path.unlink()
    (root / "validation" / "class_1").rmdir()
    assert opened(root).validation.labels.tolist() == [0, 2]


@pytest.mark.parametrize("root", ["", "/no/such/folder"])
def test_an_absent_root_is_refused(root):
    with pytest.raises(UserError, match=rf"config\.data\.root = '{root}'"):
        folder.existing_root(training_config(root).data.root)


def without_split(root, split):
    (root / split).rename(root.parent / "elsewhere")


def without_classes(root, split):
    shutil.rmtree(root / split / "class_0")


def without_images(root, split):
    (root / split / "class_0" / "0.jpg").unlink()


def with_a_stranger(root, split):
    save(root / split / "stranger" / "0.jpg", draw(0))


@pytest.mark.parametrize(
    ("change", "split", "names"),
    [
        (without_split, "train", "photographs': .* a folder train/"),
        (without_split, "validation", "photographs': .* a folder validation/"),
        (without_classes, "train", "photographs': .*images in train/$"),
        (without_images, "train", "photographs': .*train/.* 1 .*: class_0"),
        (without_images, "validation", "photographs/validation': .* 1 .*: class_0"),
        (with_a_stranger, "validation", "photographs/validation': .*train/: stranger"),
    ],
)
def test_a_folder_of_another_layout_is_refused(tmp_path, change, split, names):
    root = make_folder(tmp_path / "photographs", classes=1, train=1, validation=1)
    change(root, split)
    with pytest.raises(UserError, match=rf"config\.data\.root = '.*{names}"):
        opened(root)


def test_files_are_no_classes_and_an_empty_class_is_named(tmp_path, caplog):
    root = make_folder(tmp_path, classes=2, train=1, validation=1)
    for name in (".ipynb_checkpoints/0.jpg", "@eaDir/0.jpg", "class_0/._0.jpg", "stray.jpg"):
        save(root / "train" / name, draw(9))
    (root / "train" / "new folder").mkdir()
    (root / "train" / "class_0" / "notes.txt").write_text("no image")
    found = opened(root)
    assert found.classes == ["class_0", "class_1"]
    assert found.train.names == ["class_0/0.jpg", "class_1/0.jpg"]
    left_out, empty = caplog.messages
    assert re.match(rf"{root}/train: 2 images; .*3 hidden, 1 .*, 1 .*\(\.txt 1\)$", left_out)
    assert re.match(rf"{root}/train: 1 .*: new folder$", empty)


def test_images_of_a_class_may_lie_deeper_and_behind_links(tmp_path):
    root = make_folder(tmp_path / "root", classes=2, train=1, validation=1)
    save(root / "train" / "class_0" / "z" / "summer" / "1.jpg", draw(5))
    save(tmp_path / "elsewhere" / "deep" / "2.gif", draw(6))
    (root / "train" / "linked").symlink_to(tmp_path / "elsewhere")
    (root / "train" / "class_1" / "loop").symlink_to(root / "train")
    found = opened(root)
    assert found.classes == ["class_0", "class_1", "linked"]
    assert found.train.names == [
        "class_0/0.jpg",
        "class_0/z/summer/1.jpg",
        "class_1/0.jpg",
        "linked/deep/2.gif",
    ]
    assert found.train.labels.tolist() == [0, 0, 1, 2]
    assert found.train.read(3) == (tmp_path / "elsewhere" / "deep" / "2.gif").read_bytes()


def test_odd_bytes_of_names_are_escaped_and_read(tmp_path):
    root = make_folder(tmp_path, classes=2, train=1, validation=1)
    for split in ("train", "validation"):
        (root / split / "class_0").rename(root / split / os.fsdecode(b"caf\xe9"))
    found = opened(root)
    assert found.classes == ["caf\\xe9", "class_1"]
    assert found.train.names == ["caf\\xe9/0.jpg", "class_1/0.jpg"]
    expected = (root / "train" / os.fsdecode(b"caf\xe9") / "0.jpg").read_bytes()
    assert found.train.read(0) == expected


def test_a_folder_that_cannot_be_read_is_refused(tmp_path, monkeypatch):
    def scandir(path):
        raise PermissionError(13, "Permission denied", path)

    root = make_folder(tmp_path, classes=1)
    monkeypatch.setattr(os, "scandir", scandir)
    with pytest.raises(UserError, match="train': .*Permission denied"):
        opened(root)


def test_a_file_source_adds_its_suffix_and_says_what_it_cannot_read(tmp_path):
    save(tmp_path / "one.jpg", draw(0))
    source = FileSource(tmp_path, ["one", "two"], np.array([-1, -1]), ".jpg")
    assert source.read(0) == (tmp_path / "one.jpg").read_bytes()
    with pytest.raises(OSError, match="two.jpg"):
        source.read(1)
