import pathlib
import zipfile

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays

ARRAYS = {"conv1.weight": np.ones((2, 3), np.float16), "steps": np.asarray(7)}


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (pathlib.Path.touch, (self.trace,))


def refused(path, rule):
    with pytest.raises(UserError, match=rule) as error:
        read_arrays(str(path))
    assert error.value.subject == "config.model.pretrained"
    assert error.value.value == str(path)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_arrays_come_back_with_name_and_type(tmp_path, save):
    save(tmp_path / "weights.npz", **ARRAYS)
    found = read_arrays(str(tmp_path / "weights.npz"))
    assert set(found) == set(ARRAYS)
    for name, array in found.items():
        assert array.dtype == ARRAYS[name].dtype
        np.testing.assert_array_equal(array, ARRAYS[name])


@pytest.mark.parametrize("name", ["absent.npz", ".", ""])
def test_what_is_no_file_is_refused(tmp_path, name):
    path = tmp_path / name if name else ""
    refused(path, "must be an existing .npz file")


@pytest.mark.parametrize("content", [b"", b"weight 1 2\n", b"\x80\x04K\x07.", b"PK\x03\x04"])
def test_other_content_is_refused(tmp_path, content):
    path = tmp_path / "weights.npz"
    path.write_bytes(content)
    refused(path, "must be a whole .npz archive")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("share", [0.2, 0.5, 0.99])
def test_a_truncated_archive_is_refused(tmp_path, rng, save, share):
    path = tmp_path / "weights.npz"
    save(path, a=rng.random(1000), b=rng.random(1000))
    content = path.read_bytes()
    path.write_bytes(content[: int(share * len(content))])
    refused(path, "must be a whole .npz archive")


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_refused(tmp_path, rng, save):
    path = tmp_path / "weights.npz"
    save(path, a=rng.random(1000))
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(255 - byte for byte in content[1000:1100])
    path.write_bytes(content)
    refused(path, "must be a whole .npz archive")


def test_a_single_array_is_refused(tmp_path):
    with (tmp_path / "weights.npz").open("wb") as file:
        np.save(file, np.ones(3))
    refused(tmp_path / "weights.npz", "must be an .npz archive of named arrays")


def test_nothing_pickled_is_executed(tmp_path):
    path, trace = tmp_path / "weights.npz", tmp_path / "trace"
    np.savez(path, a=np.ones(3), b=np.array([Bomb(trace)], dtype=object))
    refused(path, "must be a whole .npz archive of plain arrays")
    assert not trace.exists()
    np.load(path, allow_pickle=True)["b"]
    assert trace.exists()  # the bomb would have gone off


@pytest.mark.parametrize("array", [np.array(["text"]), np.array([1j]), np.zeros(2, "V2")])
def test_what_is_no_number_is_refused(tmp_path, array):
    path = tmp_path / "weights.npz"
    np.savez(path, good=np.ones(3), bad=array)
    refused(path, "must hold numbers; bad is")


def test_a_zip_of_other_files_is_refused(tmp_path):
    """PyTorch's own checkpoints are such archives."""
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    refused(path, "must hold numbers; archive/data.pkl is")
