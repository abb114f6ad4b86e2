"""Whether a file is as it was: by its stamp, which needs no reading, or else by its content.

A stamp is the size and times of a file. Equal stamps mean an equal file. If only times differ, as
after a copy, the digest of the content decides. Feature stores, prepared data, training runs and
sweeps all compare their inputs so.
"""

import concurrent.futures
import functools
import hashlib
import io
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

DIGEST_BYTES = 16  # of the content of a file
_WHOLE = 2**26  # bytes; larger files may be digested by blocks
_BLOCKS, _BLOCK = 16, 2**16  # number, and bytes of each
_STATUS_THREADS = 16  # that ask for the status of files, each of which a network may delay
_STATUS_BLOCK = 4096  # files that a thread asks for at a time


class Stamp(NamedTuple):
    """Size, time and digest of a file.

    Attributes:
      size: bytes, -1 if there is no file.
      time: when its content was last changed, in nanoseconds.
      digest: of its content, 32 hexadecimal digits; "" if it was not or could not be read.
    """

    size: int
    time: int
    digest: str = ""


_ABSENT = Stamp(-1, 0)


def stamp(path: str | os.PathLike) -> Stamp:
    """The stamp of a file without its digest; size -1 if there is no file."""
    size, time, _ = _status(path)
    return _ABSENT if size < 0 else Stamp(size, time)


def stamp_with_digest(path: pathlib.Path, whole: bool = False) -> Stamp:
    """The stamp of a file with the digest of its content, see `digest_of_file`."""
    return stamp(path)._replace(digest=digest_of_file(path, whole))


def stamps(paths: Sequence[str]) -> np.ndarray:
    """Sizes and times of files.

    Args:
      paths: of n files; there may be millions.

    Returns:
      int64 [n, 3]: bytes, and when content and file last changed, in nanoseconds; -1 where there
      is no file.
    """
    if len(paths) <= _STATUS_BLOCK:
        return _stamps(paths)
    blocks = [paths[i : i + _STATUS_BLOCK] for i in range(0, len(paths), _STATUS_BLOCK)]
    with concurrent.futures.ThreadPoolExecutor(_STATUS_THREADS) as pool:
        return np.concatenate(list(pool.map(_stamps, blocks)))


def stamp_of_all(paths: Iterable[pathlib.Path]) -> np.ndarray:
    """One stamp int64 [3] of some files together: their bytes, and the latest times."""
    found = _stamps([str(path) for path in paths])
    if not len(found) or (found < 0).any():
        return np.full(3, -1, np.int64)
    return np.array([found[:, 0].sum(), *found[:, 1:].max(axis=0)], np.int64)


def difference(before: Stamp, path: pathlib.Path | None, whole: bool = False) -> str:
    """How a file differs from its stamp; reads it only if nothing but its time has changed.

    Args:
      before: with a digest.
      path: of the file now; None if it no longer belongs to the files.
      whole: as the digest was made, see `digest_of_file`.

    Returns:
      The difference as a predicate, such as "has 7 bytes, not 5"; "" if there is none.
    """
    now = _ABSENT if path is None else stamp(path)
    if path is None or now == _ABSENT:
        return "is absent"
    if now.size != before.size:
        return f"has {now.size} bytes, not {before.size}"
    if now.time != before.time and digest_of_file(path, whole) != before.digest:
        return "has other content"
    return ""


def digest(file: io.BytesIO | io.BufferedReader, whole: bool = False) -> str:
    """Digest of the content of a file, 32 hexadecimal digits.

    Args:
      file: open for reading.
      whole: whether to read all of it; otherwise a file above 64 MiB is digested by its size and
        16 blocks of 64 KiB, including the first and the last.
    """
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    if whole or size <= _WHOLE:
        return hashlib.file_digest(file, "sha256").hexdigest()[: 2 * DIGEST_BYTES]
    found = hashlib.sha256(str(size).encode())
    for number in range(_BLOCKS):
        file.seek(number * (size - _BLOCK) // (_BLOCKS - 1))
        found.update(file.read(_BLOCK))
    return found.hexdigest()[: 2 * DIGEST_BYTES]


def digest_of_file(path: pathlib.Path, whole: bool = False) -> str:
    """As `digest`, of the file at a path; "" if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return digest(file, whole)
    except OSError:
        return ""


def digest_of_bytes(data: bytes, whole: bool = False) -> str:
    """As `digest`, of bytes in memory."""
    return digest(io.BytesIO(data), whole)


def has_content(data: bytes, expected: bytes) -> bool:
    """Whether bytes have a digest of all of them, 16 bytes; earlier versions made it by BLAKE2b."""
    if bytes.fromhex(digest_of_bytes(data, whole=True)) == expected:
        return True
    return hashlib.blake2b(data, digest_size=DIGEST_BYTES).digest() == expected


def digest_of_path(root: pathlib.Path, by_content: bool) -> str:
    """Digest of a file, or of all files below a folder, 32 hexadecimal digits.

    Args:
      root: of the file or folder.
      by_content: whether to read the files; otherwise their names, sizes and times count.
    """
    total = hashlib.sha256()
    for path in _files(root):
        size, time, _ = _status(path)
        state: Any = (size, time)
        if by_content:
            state = _content(path, size, time)
        total.update(os.fsencode(f"{os.path.relpath(path, root)}\0{state}\0"))
    return total.hexdigest()[: 2 * DIGEST_BYTES]


def _files(root: pathlib.Path) -> Iterator[str]:
    """The path itself if it is a file, else all files below it, in order."""
    if root.is_file():
        yield str(root)
    for parent, folders, names in os.walk(root):
        folders.sort()
        paths = (os.path.join(parent, name) for name in sorted(names))
        yield from filter(os.path.isfile, paths)


@functools.lru_cache(maxsize=4096)
def _content(path: str, size: int, time: int) -> str:
    """Digest of a file; the other arguments make the cache notice a change."""
    del size, time
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _stamps(paths: Sequence[str]) -> np.ndarray:
    found = np.empty((len(paths), 3), np.int64)
    for number, path in enumerate(paths):
        found[number] = _status(path)
    return found


def _status(path: str | os.PathLike) -> tuple[int, int, int]:
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # the latter for a name that no system takes
        return -1, -1, -1
    return status.st_size, status.st_mtime_ns, status.st_ctime_ns
