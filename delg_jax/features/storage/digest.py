"""What a whole store holds, in one short text: from the checksums that its chunks carry anyway."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence

from delg_jax.errors import UserError
from delg_jax.features.storage.chunked_array import ChunkedArray

_CHECKSUM_BYTES = 4  # of CRC-32C, at the end of every chunk


def digest(arrays: Iterable[tuple[str, ChunkedArray]]) -> str:
    """A digest of arrays by name, that reads a few bytes of each chunk.

    Args:
      arrays: whole ones, in an order that does not depend on the machine.

    Returns:
      32 hexadecimal digits; equal for arrays of equal names, shapes, types and encoded bytes.

    Raises:
      UserError: if a chunk is absent or too short.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, array in arrays:
        found.update(repr((name, array.shape, array.dtype.str, array.chunk_rows)).encode())
        for number in range(-(-array.shape[0] // array.chunk_rows)):
            found.update(_checksum(array.chunk_path(number)))
    return found.hexdigest()


def digest_of_first(
    names: Sequence[str], arrays: Iterable[tuple[str, ChunkedArray]], rows: int
) -> str:
    """As `digest`, of the first rows, whatever stands behind them.

    Args:
      names: of the images in these rows.
      arrays: by name, but for that of the names.
      rows: how many; those that do not fill a chunk are decoded.
    """
    found = hashlib.blake2b(digest_size=16)
    found.update(repr((rows, list(names))).encode())
    for name, array in arrays:
        found.update(repr((name, array.shape[1:], array.dtype.str, array.chunk_rows)).encode())
        whole = rows // array.chunk_rows
        for number in range(whole):
            found.update(_checksum(array.chunk_path(number)))
        found.update(array.read(slice(whole * array.chunk_rows, rows)).tobytes())
    return found.hexdigest()


def _checksum(path: pathlib.Path) -> bytes:
    """Length and checksum of a chunk, 12 bytes."""
    try:
        with path.open("rb") as file:
            length = file.seek(0, os.SEEK_END)
            file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
            return length.to_bytes(8, "little") + file.read(_CHECKSUM_BYTES)
    except OSError as error:
        rule = f"cannot be used: {error.strerror}; delg verify --repair makes it again"
        raise UserError("feature store", str(path), rule) from error
