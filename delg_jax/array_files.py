"""NumPy's `.npy` and `.npz` files with checksums; pickled content is never loaded.

The comment at the end of an `.npz` file that we write is the checksum of all before it. For an
`.npy` file, `save_array` writes the checksums of its blocks to a second file, and `CheckedArray`
verifies a block when it is first read: opening takes the same time for any size.
"""

import os
import pathlib
import tokenize
import zipfile
import zlib
from collections.abc import Iterator, Mapping
from typing import Any, BinaryIO

import numpy as np

from delg_jax.errors import UserError

_BLOCK = 2**20  # bytes of a file with a checksum of their own
_SUMS = ".crc32"  # suffix of the file of checksums; uint32 each, little endian

_ZIP_END = b"PK\x05\x06"  # begins the last record of a zip file
_MARK, _DIGITS = b"crc32:", 8  # the comment of an archive: the mark, then hexadecimal digits

# What NumPy and zipfile raise on damaged files
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
    """A memory map of a `.npy` file; an empty array is read, because it cannot be mapped.

    Raises:
      OSError: if it cannot be read.
      ValueError: if it is damaged.
    """
    with path.open("rb") as file:  # NumPy does not close a file that it fails to map
        if file.read(len(np.lib.format.MAGIC_PREFIX)) != np.lib.format.MAGIC_PREFIX:
            raise ValueError(f"{path.name} is not a .npy file")
    try:
        try:
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except ValueError:
            return np.load(path, allow_pickle=False)
    except _DAMAGE as error:
        raise ValueError(_reason(path, error)) from error


def save_array(path: pathlib.Path, array: np.ndarray, block: int = _BLOCK) -> None:
    """Writes a `.npy` file, and a second file with the checksums of its blocks."""
    np.save(path, array)
    write_checksums(path, block)


def write_checksums(path: pathlib.Path, block: int = _BLOCK) -> None:
    """Writes the checksums of the blocks of a `.npy` file, of `block` bytes each, beside it."""
    with path.open("rb") as file:
        sums = [zlib.crc32(content) for content in _blocks(file, block)]
    np.array(sums, "<u4").tofile(_sums_path(path))


class CheckedArray:
    """Rows of a `.npy` file that `save_array` wrote, verified when they are first read.

    Args:
      path: of the file.
      subject: what the file is, for errors.
      remedy: what to do if it is damaged, for errors.
      block: bytes of a block, as they were written.

    Attributes:
      shape: rows first.
      dtype: of the values.
      unverified: the array, memory-mapped; for what `verify` has seen.

    Raises:
      OSError: if it or its checksums cannot be read.
      UserError: if the first block is damaged; for other blocks, when they are read.
    """

    def __init__(self, path: pathlib.Path, subject: str, remedy: str, block: int = _BLOCK) -> None:
        self._path, self._subject, self._remedy, self._block = path, subject, remedy, block
        self._bytes = np.memmap(path, np.uint8, "r")
        self._sums = np.fromfile(_sums_path(path), "<u4")
        self._checked = np.zeros(len(self._sums), bool)
        blocks = -(-len(self._bytes) // block)
        if len(self._sums) != blocks or _sums_path(path).stat().st_size != 4 * blocks:
            raise self._damage("its length does not match its checksums")
        self._check(0, 1)  # the header
        try:
            self.unverified = open_array(path)
        except ValueError as error:
            raise self._damage(str(error)) from error
        self._start = len(self._bytes) - self.unverified.nbytes
        self.shape, self.dtype = self.unverified.shape, self.unverified.dtype

    def __len__(self) -> int:
        """Number of rows."""
        return len(self.unverified)

    def __getitem__(self, rows: slice) -> np.ndarray:
        """The rows of a slice without step, memory-mapped; a UserError if they are damaged."""
        start, stop, _ = rows.indices(len(self))
        values = self.unverified.size // max(len(self), 1)
        self.verify(start * values, stop * values)
        return self.unverified[start:stop]

    def verify(self, start: int, stop: int) -> None:
        """Verifies some values, in the order of the file; a UserError if they are damaged."""
        size = self.dtype.itemsize
        first = (self._start + start * size) // self._block
        self._check(first, -(-(self._start + stop * size) // self._block))

    def __array__(self, dtype: Any = None, copy: bool | None = None) -> np.ndarray:
        """All rows; memory-mapped unless a copy or another dtype is requested."""
        return np.array(self[:], dtype, copy=copy)

    def _check(self, first: int, stop: int) -> None:
        for block in range(first, stop):
            if self._checked[block]:
                continue
            content = self._bytes[block * self._block : (block + 1) * self._block]
            if zlib.crc32(content.data) != self._sums[block]:
                raise self._damage(f"block {block} differs from its checksum")
            self._checked[block] = True

    def _damage(self, reason: str) -> UserError:
        return UserError(self._subject, str(self._path), f"is damaged: {reason}; {self._remedy}")


def save_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed `.npz` file of named arrays, with a checksum."""
    with path.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # NumPy types all keywords as bool
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = _MARK + bytes(_DIGITS)
    with path.open("r+b") as file:
        found = _archive_checksum(file)
        file.seek(-_DIGITS, os.SEEK_END)
        file.write(f"{found:0{_DIGITS}x}".encode())


def read_arrays(path: pathlib.Path) -> dict[str, np.ndarray]:
    """All arrays of a `.npz` file by name; raises as `open_array`."""
    is_whole = False
    try:
        with path.open("rb") as file:
            is_whole = _require_whole(path, file)
            arrays = np.load(file, allow_pickle=False)
            if isinstance(arrays, np.ndarray):
                raise ValueError(f"{path.name} must be an archive of arrays")
            return {name: arrays[name] for name in arrays.files}
    except _DAMAGE as error:
        if isinstance(error, MemoryError) and is_whole:
            raise  # the machine lacks it
        raise ValueError(_reason(path, error)) from error


def _archive_checksum(file: BinaryIO) -> int:
    """The checksum of all before the comment."""
    left, found = file.seek(0, os.SEEK_END) - len(_MARK) - _DIGITS, 0
    file.seek(0)
    for block in _blocks(file):
        found = zlib.crc32(block[:left], found)
        left = max(left - len(block), 0)
    return found


def _require_whole(path: pathlib.Path, file: BinaryIO) -> bool:
    """Raises a ValueError if an archive differs from its checksum; False for one without."""
    size = file.seek(0, os.SEEK_END)
    file.seek(max(size - len(_ZIP_END) - 18 - len(_MARK) - _DIGITS, 0))
    _, end, record = file.read().rpartition(_ZIP_END)
    # Python's reader accepts an archive whose comment was cut off
    if end and int.from_bytes(record[16:18], "little") > len(record[18:]):
        raise ValueError(f"{path.name} is damaged: its end is missing")
    file.seek(max(size - len(_MARK) - _DIGITS, 0))
    comment = file.read()
    if comment.startswith(_MARK):
        digits = f"{_archive_checksum(file):0{_DIGITS}x}"
        if comment != _MARK + digits.encode():
            raise ValueError(f"{path.name} is damaged: it differs from its checksum")
    file.seek(0)
    return comment.startswith(_MARK)


def _blocks(file: BinaryIO, size: int = _BLOCK) -> Iterator[bytes]:
    return iter(lambda: file.read(size), b"")


def _sums_path(path: pathlib.Path) -> pathlib.Path:
    return path.with_name(path.name + _SUMS)


def _reason(path: pathlib.Path, error: Exception) -> str:
    return f"{path.name} is damaged: {' '.join(str(error).split())}"
