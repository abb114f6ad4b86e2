import numpy as np
import pytest

from delg_jax import array_files
from delg_jax.array_files import CheckedArray, open_array, read_arrays, save_array, save_arrays
from delg_jax.errors import UserError
from tests.flips import flips


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
    for read in (open_array, read_arrays):
        with pytest.raises(ValueError, match=r"\S"):
            read(path)


def test_nothing_pickled_is_loaded(tmp_path):
    np.save(tmp_path / "a.npy", np.array([print], dtype=object))
    np.savez(tmp_path / "a.npz", a=np.array([print], dtype=object))
    for read, name in ((open_array, "a.npy"), (read_arrays, "a.npz")):
        with pytest.raises(ValueError, match="pickle"):
            read(tmp_path / name)


def test_one_array_is_no_archive(tmp_path):
    np.save(tmp_path / "a.npy", np.ones(3))
    with pytest.raises(ValueError, match="archive"):
        read_arrays(tmp_path / "a.npy")


def test_every_flipped_bit_of_an_archive_is_noticed_or_changes_nothing(tmp_path, rng):
    path = tmp_path / "a.npz"
    whole = {"local": rng.integers(0, 9, (2, 9)), "global+sp:easy": rng.random(3)}
    save_arrays(path, whole)
    with np.load(path) as archive:  # by anybody else
        assert set(archive) == set(whole)
    refused = 0
    for _ in flips(path):
        try:
            found = read_arrays(path)
        except (OSError, ValueError):
            refused += 1
            continue
        assert found.keys() == whole.keys()
        for name, array in whole.items():
            np.testing.assert_array_equal(found[name], array, strict=True)
    assert refused > 5000


@pytest.fixture
def checked(tmp_path, rng):
    """An array of 40 rows in blocks of 256 bytes, and its file."""
    array = rng.random((40, 3)).astype(np.float32)
    save_array(tmp_path / "a.npy", array, 256)
    return array, tmp_path / "a.npy"


def open_checked(path):
    return CheckedArray(path, "thing", "make it again", 256)


def test_a_checked_array_is_that_which_was_saved(checked):
    array, path = checked
    found = open_checked(path)
    assert (found.shape, found.dtype, len(found)) == ((40, 3), np.float32, 40)
    for rows in (slice(0, 40), slice(7, 9), slice(39, None), slice(5, 5), slice(None)):
        np.testing.assert_array_equal(found[rows], array[rows], strict=True)
    assert isinstance(found[3:5], np.memmap)
    np.testing.assert_array_equal(np.concatenate([found, found]), np.concatenate([array, array]))
    assert np.asarray(found, np.float64).dtype == np.float64
    empty = path.with_name("empty.npy")
    save_array(empty, array[:0], 256)
    assert open_checked(empty)[:].shape == (0, 3)


@pytest.mark.parametrize("suffix", ["", ".crc32"])
def test_every_flipped_bit_of_a_checked_array_is_noticed(checked, suffix):
    _, path = checked
    refused = 0
    for _ in flips(path.with_name(path.name + suffix), 400):
        with pytest.raises(UserError, match=r"^thing = .*a\.npy.*; make it again$"):
            open_checked(path)[:]
        refused += 1
    assert refused >= 32 * 3


def test_only_what_is_read_is_checked_and_only_once(checked, monkeypatch):
    array, path = checked
    with path.open("r+b") as file:
        file.seek(-1, 2)
        file.write(b"\x99")  # in the last of three blocks
    found = open_checked(path)
    np.testing.assert_array_equal(found[:10], array[:10])
    with pytest.raises(UserError, match="block 2 .*checksum"):
        found[30:]
    monkeypatch.setattr(array_files.zlib, "crc32", None)
    np.testing.assert_array_equal(found[:10], array[:10])


def test_another_length_is_detected_on_opening(checked):
    path = checked[1]
    path.write_bytes(path.read_bytes() + bytes(300))
    with pytest.raises(UserError, match="length"):
        open_checked(path)
