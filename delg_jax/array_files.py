"""NumPy's files that may be damaged: `.npy`, mapped, and `.npz`. Nothing pickled is ever loaded."""

import pathlib
import tokenize
import zipfile
import zlib

import numpy as np

# What NumPy and zipfile raise on bytes of any kind
_DAMAGE = (
    EOFError,
    KeyError,
    MemoryError,
    NotImplementedError,
    OverflowError,
    RuntimeError,
    SyntaxError,
    TypeError,
    tokenize.TokenError,
    zipfile.BadZipFile,
    zlib.error,
)


def open_array(path: pathlib.Path) -> np.ndarray:
    """A memory map of a `.npy` file, or an empty array, which cannot be mapped.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is damaged.
    """
    with path.open("rb") as file:  # NumPy does not close what it maps and cannot read
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError(f"{path.name} is no .npy file")
    try:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            return np.load(path, allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(_reason(path, error)) from error


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file by name; raises as `open_array`."""
    try:
        with path.open("rb") as file:
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError(f"{path.name} must be an archive of arrays")
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGE as error:
        raise ValueError(_reason(path, error)) from error


def _reason(path: pathlib.Path, error: Exception) -> str:
    return f"{path.name} is damaged: {' '.join(str(error).split())}"
