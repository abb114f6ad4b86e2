import numpy as np
import pytest

from delg_jax.array_files import open_array, read_arrays


def test_an_array_is_mapped_and_an_empty_one_read(tmp_path):
    for name, array in (("whole", np.arange(6.0)), ("empty", np.zeros((0, 3)))):
        np.save(tmp_path / f"{name}.npy", array)
        np.testing.assert_array_equal(open_array(tmp_path / f"{name}.npy"), array)
    assert isinstance(open_array(tmp_path / "whole.npy"), np.memmap)


def test_an_archive_is_read_by_name(tmp_path):
    np.savez(tmp_path / "a.npz", one=np.ones(2), two=np.zeros((1, 3)))
    found = read_arrays(tmp_path / "a.npz")
    assert {name: array.shape for name, array in found.items()} == {"one": (2,), "two": (1, 3)}


@pytest.mark.parametrize(
    "data", [b"", b"\x93NUMPY", b"PK\x03\x04", b"\x93NUMPY\x01\x006\x00\x93{'d"]
)
def test_damage_is_one_kind_of_error(tmp_path, data):
    path = tmp_path / "damaged"
    path.write_bytes(data)
    with pytest.raises(ValueError, match=r"\S"):
        open_array(path)
    with pytest.raises(ValueError, match=r"\S"):
        read_arrays(path)


def test_nothing_pickled_is_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], dtype=object))
    np.savez(tmp_path / "a.npz", a=np.array([print], dtype=object))
    with pytest.raises(ValueError, match="pickle"):
        open_array(tmp_path / "a.npy")
    with pytest.raises(ValueError, match="pickle"):
        read_arrays(tmp_path / "a.npz")


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match="archive"):
        read_arrays(tmp_path / "a.npy")
