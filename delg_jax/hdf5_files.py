"""Reads HDF5 files of others: only numbers that lie in the file itself.

The format lets a file name any other file of the machine, as a link, as storage outside, or as the
source of a virtual data set, and declare far more numbers than it holds.
"""

import contextlib
import io
import os
import pathlib
import stat
from collections.abc import Iterator
from typing import Any

import numpy as np

_LARGEST = 2**34  # bytes of an array, decoded
_SUSPECT, _MOST_RATIO = 2**20, 1100  # bytes; deflate compresses to 1/1032 at best
_NUMBERS = "fiub"  # kinds of data type: float, integer, unsigned integer, boolean


@contextlib.contextmanager
def reading(path: str | pathlib.Path, content: bytes | None = None) -> Iterator[Any]:
    """Opens a file to read.

    Args:
      path: of the file.
      content: its bytes if they are known already.

    Yields:
      The open `h5py.File`.

    Raises:
      OSError: if the file is missing or not HDF5.
      ModuleNotFoundError: if the package h5py is not installed.
    """
    import h5py

    if content is None and not stat.S_ISREG(os.stat(path).st_mode):
        raise OSError("not a regular file")  # a pipe would never open
    with h5py.File(path if content is None else io.BytesIO(content), "r") as file:
        yield file


def has(group: Any, name: str) -> bool:
    """Whether a group has a member, or a link, of this name; follows no link."""
    return group.get(name, getlink=True) is not None


def member(group: Any, path: str) -> Any:
    """A group or data set below a group, by a path with slashes; None if there is none.

    Raises:
      ValueError: if a link on the path leads elsewhere, which would open other files.
    """
    import h5py

    for name in filter(None, path.split("/")):
        link = group.get(name, getlink=True) if isinstance(group, h5py.Group) else None
        if link is None:
            return None
        if not isinstance(link, h5py.HardLink):
            raise ValueError(f"{path} must lie in this file, not behind a link")
        group = group[name]
    return group


def read(dataset: Any, name: str) -> np.ndarray:
    """The numbers of a data set.

    Args:
      dataset: of `member`.
      name: of it, for errors.

    Returns:
      An array of numbers, as they are stored.

    Raises:
      ValueError: if it is no array of real numbers, lies outside the file, or is larger than the
        file can hold.
    """
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} must be an array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} must lie in this file, not in another")
    if dataset.dtype.kind not in _NUMBERS:
        raise ValueError(f"{name} must hold real numbers, not {dataset.dtype}")
    size, stored = dataset.nbytes, dataset.id.get_storage_size()
    if size > _LARGEST:
        raise ValueError(f"{name} has {size} bytes, more than {_LARGEST}")
    if size > _SUSPECT and size > _MOST_RATIO * stored:
        raise ValueError(f"{name} declares {size} bytes, of which {stored} are there")
    return np.asarray(dataset[()])
