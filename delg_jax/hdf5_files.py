"""Reads HDF5 files of others: only numbers and names that lie in the file itself.

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

from delg_jax import system_errors
from delg_jax.errors import UserError, require_package

_LARGEST = 2**34  # bytes of an array, decoded
_SUSPECT, _MOST_RATIO = 2**20, 1100  # bytes; deflate compresses to 1/1032 at best
_NUMBERS = "fiub"  # kinds of data type: float, integer, unsigned integer, boolean
_TEXTS_AT_ONCE = 2**28  # bytes


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


@contextlib.contextmanager
def opened(path: str | pathlib.Path) -> Iterator[Any]:
    """As `reading`, with errors that name the file.

    Args:
      path: of the file.

    Yields:
      The open `h5py.File`.

    Raises:
      UserError: if the file is missing or not HDF5, or the package h5py is not installed.
    """
    package()
    with contextlib.ExitStack() as stack:
        try:
            file = stack.enter_context(reading(path))
        except OSError as error:
            raise UserError("HDF5 file", str(path), f"cannot be read as HDF5 ({error})") from error
        yield file


def finite(values: np.ndarray, name: str) -> np.ndarray:
    """As float32; a ValueError for other numbers than finite ones."""
    with np.errstate(over="ignore"):
        array = np.asarray(values, np.float32)
    if not np.isfinite(array).all():
        raise ValueError(f"{name} must be finite numbers")
    return array


def package() -> Any:
    """The package h5py; a UserError if it is not installed."""
    return require_package("h5py", "h5py", "HDF5 files need it: pip install h5py")


@contextlib.contextmanager
def naming(path: str | pathlib.Path, what: str) -> Iterator[None]:
    """Turns errors of damaged files, which h5py raises of any type, into UserErrors.

    Args:
      path: of the file.
      what: cannot be read, such as `image NAME`.
    """
    try:
        yield
    except UserError:
        raise
    except Exception as error:
        system_errors.reraise(error)
        text = " ".join(str(error).split())
        raise UserError("HDF5 file", str(path), f"cannot be used for {what}: {text}") from error


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


def read(dataset: Any, name: str, rows: slice | None = None, fields: bool = False) -> np.ndarray:
    """The numbers of a data set.

    Args:
      dataset: of `member`.
      name: of it, for errors.
      rows: of its first axis, all by default; of a large file, only these are read.
      fields: whether it may hold records whose fields are numbers.

    Returns:
      An array of numbers, as they are stored.

    Raises:
      ValueError: if it is no array of real numbers, lies outside the file, or is larger than the
        file can hold.
    """
    check(dataset, name, fields)
    size = dataset.nbytes
    if rows is not None:
        if not dataset.ndim:
            raise ValueError(f"{name} must be an array")
        size = size // max(len(dataset), 1) * len(range(*rows.indices(len(dataset))))
    if size > _LARGEST:
        raise ValueError(f"{name} has {size} bytes, more than {_LARGEST}")
    return np.asarray(dataset[() if rows is None else rows])


def check(dataset: Any, name: str, fields: bool = False) -> None:
    """Raises a ValueError for a data set that `read` refuses whatever its rows; see there."""
    _require_own(dataset, name)
    names = (dataset.dtype.names or ()) if fields else ()
    parts = [dataset.dtype[part] for part in names] or [dataset.dtype]
    if any(part.base.kind not in _NUMBERS for part in parts):
        raise ValueError(f"{name} must hold real numbers, not {dataset.dtype}")
    size, stored = dataset.nbytes, dataset.id.get_storage_size()
    if size > _SUSPECT and size > _MOST_RATIO * stored:
        raise ValueError(f"{name} declares {size} bytes, of which {stored} are there")


def read_texts(dataset: Any, name: str) -> list[str]:
    """The texts of a data set [N].

    Args:
      dataset: of `member`.
      name: of it, for errors.

    Returns:
      N texts; bytes that are not UTF-8 are kept as surrogates.

    Raises:
      ValueError: if it is no list of texts, lies outside the file, or is larger than the file.
    """
    import h5py

    _require_own(dataset, name)
    kind = h5py.check_string_dtype(dataset.dtype)
    if dataset.ndim != 1 or kind is None:
        raise ValueError(f"{name} must be a list of texts, not {dataset.dtype}")
    size = dataset.file.id.get_filesize()
    width = kind.length or 0
    if len(dataset) * max(width, 1) > _MOST_RATIO * size:
        raise ValueError(f"{name} declares {len(dataset)} texts in a file of {size} bytes")
    # Texts of any length can all point at the same bytes, so a block is bounded by the file's size
    step = min(max(_TEXTS_AT_ONCE // max(width or size, 1), 16), 2**16)
    texts: list[str] = []
    left = max(2 * size, _SUSPECT) if not width else len(dataset) * width
    for start in range(0, len(dataset), step):
        block = [bytes(text) for text in dataset[start : start + step]]
        left -= sum(map(len, block))
        if left < 0:
            raise ValueError(f"{name} has more text than the file has bytes")
        texts += [text.decode(errors="surrogateescape") for text in block]
    return texts


def _require_own(dataset: Any, name: str) -> None:
    import h5py

    if not isinstance(dataset, h5py.Dataset):
        raise ValueError(f"{name} must be an array")
    if dataset.external or dataset.is_virtual:
        raise ValueError(f"{name} must lie in this file, not in another")
