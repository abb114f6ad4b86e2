"""`store.json`, what a store says of itself as a whole: its reader and its writer."""

import pathlib
from typing import Any

from delg_jax import json_files, workdir
from delg_jax.errors import UserError
from delg_jax.features.storage import encodings, rows

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
