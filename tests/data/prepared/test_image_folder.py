import numpy as np
import pytest

from delg_jax.data import open_training
from delg_jax.errors import UserError
from tests.data.prepared.published import jpeg, settings


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


def test_two_folders_of_one_name_are_two_data_sets(tmp_path, root):
    first = open_training(settings(root, tmp_path / "tfds", "image_folder"))
    other = tmp_path / "elsewhere" / root.name
    other.parent.mkdir()
    root.rename(other)
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
