import os

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


def test_a_class_of_validation_alone_is_refused(tmp_path):
    root = make_folder(tmp_path, classes=1)
    save(root / "validation" / "stranger" / "0.jpg", draw(0))
    with pytest.raises(UserError, match=r"validation'.*no folder of that name in train/: stranger"):
        opened(root)


@pytest.mark.parametrize("root", ["", "/no/such/folder"])
def test_an_absent_root_is_refused(root):
    with pytest.raises(UserError, match=rf"config\.data\.root = '{root}'"):
        folder.existing_root(training_config(root).data.root)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_an_absent_split_is_refused(tmp_path, split):
    root = make_folder(tmp_path / "photographs", classes=1)
    (root / split).rename(tmp_path / "elsewhere")
    with pytest.raises(UserError, match=rf"must have a folder {split}/"):
        opened(root)


def test_train_without_classes_is_refused(tmp_path):
    (tmp_path / "train").mkdir()
    with pytest.raises(UserError, match="must have folders of images in train/"):
        opened(tmp_path)


@pytest.mark.parametrize(
    ("split", "rule"),
    [
        (
            "train",
            "folders of images in train/; it has 1 classes without images: class_0",
        ),
        (
            "validation",
            "validation': must contain images; it has 1 classes .*: class_0",
        ),
    ],
)
def test_a_split_without_images_is_refused(tmp_path, split, rule):
    root = make_folder(tmp_path, classes=1)
    for path in (root / split).glob("*/*"):
        path.unlink()
    with pytest.raises(UserError, match=rf"config\.data\.root = '.*{rule}"):
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
    assert caplog.messages == [
        f"{root / 'train'}: 2 images; left out: 3 hidden, 1 in no folder of a class,"
        " 1 of other endings (.txt 1)",
        f"{root / 'train'}: 1 classes without images: new folder",
    ]


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
    with pytest.raises(UserError, match=r"train': cannot be read: .*Permission denied"):
        opened(root)


def test_a_file_source_adds_its_suffix_and_says_what_it_cannot_read(tmp_path):
    save(tmp_path / "one.jpg", draw(0))
    source = FileSource(tmp_path, ["one", "two"], np.array([-1, -1]), ".jpg")
    assert source.read(0) == (tmp_path / "one.jpg").read_bytes()
    with pytest.raises(OSError, match="two.jpg"):
        source.read(1)
