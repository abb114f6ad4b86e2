"""`store.json`, the index of a store: reading, writing, and the digest of the arrays."""

import hashlib
import pathlib
from collections.abc import Iterable, Sequence
from typing import Any

from delg_jax import json_files, workdir
from delg_jax.errors import UserError
from delg_jax.features.storage import encodings
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.rows import Layout

FORMAT = 2
INDEX_1 = "index.json"  # of format 1, a folder of .npz files

_COUNTS = ("images", "name_bytes")
_LARGEST_COUNT = 2**31 - 1  # images are numbered by int32
_FIELDS = ("images", "name_bytes", "deleted", "finished", "digest")


def read_index(folder: pathlib.Path) -> dict[str, Any]:
    """Reads `store.json`; `digest` is "" if an earlier version wrote none.

    Args:
      folder: of the store.

    Raises:
      UserError: if there is no index, it has another format, or it is damaged.
    """
    path, remedy = folder / "store.json", "delg extract --overwrite replaces the store"
    index = json_files.read(path, "feature store", json_files.anything, remedy)
    try:
        _require_format(folder, index["format"])  # first, because all else may differ
        valid = _is_layout(Layout(**index["layout"]))
        valid &= all(_is_count(index[key]) for key in _COUNTS)
        valid &= all(isinstance(index[key], bool) for key in ("deleted", "finished"))
        valid &= isinstance(index.setdefault("digest", ""), str)
    except (KeyError, TypeError) as error:
        if (folder / INDEX_1).is_file():
            _require_format(folder, 1)
        rule = "must be a feature store; delg extract makes one"
        raise UserError("feature store", str(folder), rule) from error
    if not valid:
        raise UserError("feature store", str(path), f"is damaged; {remedy}")
    return index


def write_index(folder: pathlib.Path, content: dict[str, Any], layout: Layout) -> None:
    """Writes `store.json` atomically.

    Args:
      folder: of the store.
      content: as `read_index` returns it; `digest` is optional.
      layout: of the arrays.
    """
    fields = {name: content.get(name, "") for name in _FIELDS}
    index = {"format": FORMAT, **fields, "layout": layout._asdict()}
    workdir.write_json(folder / "store.json", index)


def digest(arrays: Iterable[tuple[str, ChunkedArray]]) -> str:
    """Computes a digest of arrays from the checksums of their chunks.

    Args:
      arrays: complete arrays by name, in an order that does not depend on the machine.

    Returns:
      32 hexadecimal digits; equal for arrays of equal names, shapes, types and encoded bytes.

    Raises:
      UserError: if a chunk is absent or too short.
    """
    found = hashlib.blake2b(digest_size=16)
    for name, array in arrays:
        found.update(repr((name, array.shape, array.dtype.str, array.chunk_rows)).encode())
        for number in range(-(-array.shape[0] // array.chunk_rows)):
            found.update(array.checksums(number))
    return found.hexdigest()


def digest_of_first(
    names: Sequence[str], arrays: Iterable[tuple[str, ChunkedArray]], rows: int
) -> str:
    """Computes a digest of the first rows, whatever rows follow them.

    Args:
      names: of the images in these rows.
      arrays: by name, except the array of names.
      rows: number of rows; those that do not fill a chunk are decoded.

    Returns:
      32 hexadecimal digits.

    Raises:
      UserError: as `digest`.
    """
    found = hashlib.blake2b(digest_size=16)
    found.update(repr((rows, list(names))).encode())
    for name, array in arrays:
        found.update(repr((name, array.shape[1:], array.dtype.str, array.chunk_rows)).encode())
        full_chunks = rows // array.chunk_rows
        for number in range(full_chunks):
            found.update(array.checksums(number))
        found.update(array.read(slice(full_chunks * array.chunk_rows, rows)).tobytes())
    return found.hexdigest()


def _require_format(folder: pathlib.Path, found: object) -> None:
    if found != FORMAT:
        rule = f"is of format {found}, this program reads {FORMAT}; delg extract --overwrite "
        raise UserError("feature store", str(folder), f"{rule}replaces it")


def _is_count(value: object) -> bool:
    return type(value) is int and 0 <= value <= _LARGEST_COUNT


def _is_layout(layout: Layout) -> bool:
    """Whether a layout from a file has valid values."""
    numbers = (layout.chunk_images, layout.max_features, layout.compression)
    return (
        all(map(_is_count, numbers))
        and layout.local_encoding in encodings.ENCODINGS
        and layout.global_dtype in encodings.GLOBAL_DTYPES
    )
