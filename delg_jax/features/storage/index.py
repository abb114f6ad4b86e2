"""`store.json`, what a store says of itself as a whole: its reader and its writer."""

import hashlib
import os
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from delg_jax import json_files, workdir
from delg_jax.errors import UserError
from delg_jax.features.storage import encodings, rows
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


FORMAT = 2
INDEX_1 = "index.json"  # of format 1, a folder of .npz files

_COUNTS = ("images", "name_bytes")
_MOST = 2**31 - 1  # images are numbered by int32
_WRITTEN = ("images", "name_bytes", "deleted", "finished", "digest")


def write_index(
    folder: pathlib.Path, version: int, content: dict[str, Any], layout: rows.Layout
) -> None:
    """Writes `store.json`, whole or not at all.

    Args:
      folder: of the store.
      version: of the format.
      content: what `read_index` gives; `digest` may be absent.
      layout: of the arrays.
    """
    kept = {name: content.get(name, "") for name in _WRITTEN}
    whole = {"format": version, **kept, "layout": layout._asdict()}
    workdir.write_json(folder / "store.json", whole)


def read_index(folder: pathlib.Path, version: int) -> dict[str, Any]:
    """The content of `store.json`; its `digest` is "" where an earlier version wrote none.

    Args:
      folder: of the store.
      version: the format that is understood.

    Raises:
      UserError: if there is none, or of another format.
    """
    path, remedy = folder / "store.json", "delg extract --overwrite makes the store again"
    index = json_files.read(path, "feature store", json_files.anything, remedy)
    try:
        _require_format(folder, index["format"], version)  # first, as all else may differ
        whole = _is_layout(rows.Layout(**index["layout"]))
        whole &= all(_is_count(index[key]) for key in _COUNTS)
        whole &= all(isinstance(index[key], bool) for key in ("deleted", "finished"))
        whole &= isinstance(index.setdefault("digest", ""), str)
    except (KeyError, TypeError) as error:
        if (folder / INDEX_1).is_file():
            _require_format(folder, 1, version)
        rule = "must be a feature store; delg extract makes one"
        raise UserError("feature store", str(folder), rule) from error
    if not whole:
        raise UserError("feature store", str(path), f"is damaged; {remedy}")
    return index


def _require_format(folder: pathlib.Path, found: object, version: int) -> None:
    if found != version:
        rule = f"is of format {found}, this program reads {version}; delg extract --overwrite "
        raise UserError("feature store", str(folder), f"{rule}makes it again")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _MOST


def _is_layout(layout: rows.Layout) -> bool:
    """Whether a layout that was read is one that can be written."""
    numbers = (layout.chunk_images, layout.max_features, layout.compression)
    return (
        all(map(_is_count, numbers))
        and layout.local_encoding in encodings.ENCODINGS
        and layout.global_dtype in encodings.GLOBAL_DTYPES
    )
