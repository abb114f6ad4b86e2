"""What tells a file from another without reading it: size and time, and if need be its content."""

import hashlib
import io
import os
import pathlib
from typing import BinaryIO, NamedTuple

_WHOLE = 2**26  # bytes; of a larger file only blocks are read
_BLOCKS, _BLOCK = 16, 2**16  # number, and bytes of each


class Stamp(NamedTuple):
    """A file as it was.

    Attributes:
      size: bytes, -1 of a file that was not there.
      time: of its last change, nanoseconds.
      digest: of its content, "" if it could not be read.
    """

    size: int
    time: int
    digest: str = ""


def stamp(path: str | os.PathLike) -> Stamp:
    """Size and time of a file, without a digest; size -1 if it is not there."""
    try:
        status = os.stat(path)
    except OSError:
        return Stamp(-1, 0)
    return Stamp(status.st_size, status.st_mtime_ns)


def digest(file: BinaryIO, whole: bool = False) -> str:
    """Digest of a file's content, 32 hexadecimal digits.

    Args:
      file: open for reading.
      whole: whether all of it is read; else, above 64 MiB, its size and 16 blocks of 64 KiB stand
        for it, the first and the last among them.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if whole or size <= _WHOLE:
        return hashlib.file_digest(file, "sha256").hexdigest()[:32]
    found = hashlib.sha256(str(size).encode())
    for number in range(_BLOCKS):
        file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
        found.update(file.read(_BLOCK))
    return found.hexdigest()[:32]


def digest_of_bytes(data: bytes) -> str:
    """As `digest`, of bytes in memory."""
    return digest(io.BytesIO(data))


def digest_of_path(path: pathlib.Path, whole: bool = False) -> str:
    """As `digest`, of the file at a path; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return digest(file, whole)
    except OSError:
        return ""
