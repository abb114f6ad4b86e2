import pathlib
import zipfile

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.weights import read_arrays


class Bomb:
    """Unpickling it leaves a trace."""

    def __init__(self, trace):
        self.trace = trace

    def __reduce__(self):
        return (pathlib.Path.touch, (self.trace,))


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
def test_changed_bytes_are_refused(tmp_path, rng, save):
    path = tmp_path / "weights.npz"
    save(path, a=rng.random(1000))
    content = bytearray(path.read_bytes())
    content[1000:1100] = bytes(255 - byte for byte in content[1000:1100])
    path.write_bytes(content)
    with pytest.raises(UserError, match="must be an intact .npz archive"):
        read_arrays(str(path))


def test_a_single_array_is_refused(tmp_path):
    path = tmp_path / "weights.npz"
    with path.open("wb") as file:
        np.save(file, np.ones(3))
    with pytest.raises(UserError, match="must be an .npz archive of named arrays"):
        read_arrays(str(path))


def test_nothing_pickled_is_executed(tmp_path):
    path, trace = tmp_path / "weights.npz", tmp_path / "trace"
    np.savez(path, a=np.ones(3), b=np.array([Bomb(trace)], dtype=object))
    with pytest.raises(UserError, match="must be an intact .npz archive of plain arrays"):
        read_arrays(str(path))
    assert not trace.exists()
    np.load(path, allow_pickle=True)["b"]
    assert trace.exists()  # the bomb would have gone off


def test_a_zip_of_other_files_is_refused(tmp_path):
    """PyTorch's own checkpoints are such archives."""
    path = tmp_path / "weights.npz"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
    with pytest.raises(UserError, match="archive/data.pkl is"):
        read_arrays(str(path))


def test_a_declared_huge_size_is_refused(tmp_path):
    """The size stands in the directory at the end of the file; nothing need be behind it."""
    path = tmp_path / "weights.npz"
    np.savez(path, a=np.ones(3))
    content = path.read_bytes()
    entry = content.rindex(b"PK\x01\x02")
    huge = (2**32 - 2).to_bytes(4, "little")
    path.write_bytes(content[: entry + 24] + huge + content[entry + 28 :])
    with pytest.raises(UserError, match="must not unpack"):
        read_arrays(str(path))
