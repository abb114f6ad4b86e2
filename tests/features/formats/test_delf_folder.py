import numpy as np
import pytest

from delg_jax.features.formats import delf
from delg_jax.features.formats.delf import DelfFolder
from delg_jax.features.formats.image_order import AbsentImageError
from delg_jax.features.local_features import LocalFeatures


def local_of(scores):
    count = len(scores)
    return LocalFeatures(
        np.ones((count, 2), np.float32),
        np.ones(count, np.float32),
        np.array(scores, np.float32),
        np.array(scores, np.float32)[:, None],
        np.ones(count, bool),
    )


@pytest.mark.parametrize(
    ("stored", "wanted"),
    [("a", "a"), ("a.jpg", "a"), ("a", "a.jpg"), ("x/a.JPG", "x/a"), ("a.png", "a.png")],
)
def test_files_are_found_by_names_of_images(tmp_path, stored, wanted):
    delf.write_local(tmp_path / f"{stored}.delg_local", local_of([1.0, 2.0]))
    delf.write_global(tmp_path / f"{stored}.delg_global", np.array([5.0]))
    folder = DelfFolder(tmp_path)
    assert folder.read_local(wanted).descriptors.tolist() == [[2], [1]]
    assert folder.read_global(wanted).tolist() == [5]


def test_an_absent_image_is_told_from_a_damaged_one(tmp_path):
    delf.write_local(tmp_path / "a.delg_local", local_of([1.0]))
    with pytest.raises(AbsentImageError, match=r"'b': .*\.delg_local"):
        DelfFolder(tmp_path).read_local("b")
    with pytest.raises(AbsentImageError, match=r"'a': .*\.delg_global"):
        DelfFolder(tmp_path).read_global("a")
