"""The index of constrained approximate nearest neighbours on disk: a folder of memory maps."""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile

import numpy as np

from delg_jax.errors import UserError
from delg_jax.search.cann import CannIndex
from delg_jax.search.random_grids import GridSettings

_ARRAYS = ("keys", "images", "offsets")
_HEADER = "index.json"
_FORMAT = 1


def save(index: CannIndex, folder: str | pathlib.Path) -> None:
    """Writes the index; the folder appears under its name only when it is whole.

    Args:
      index: may be the loaded content of the same folder.
      folder: replaced if it is there.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    temporary = pathlib.Path(tempfile.mkdtemp(dir=folder.parent, prefix=f".{folder.name}."))
    try:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name in _ARRAYS:
            np.save(new / f"{name}.npy", getattr(index, name))
        header = {
            "format": _FORMAT,
            "settings": dataclasses.asdict(index.settings),
            "dimension": index.dimension,
            "count": index.count,
        }
        (new / _HEADER).write_text(json.dumps(header, indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            os.replace(folder, old)
        os.replace(new, folder)
    finally:
        shutil.rmtree(temporary)


def load(folder: str | pathlib.Path) -> CannIndex:
    """Opens an index that `save` wrote; its arrays are read from disk where they are needed.

    Raises:
      UserError: if the folder is missing, damaged or not such an index.
    """
    folder = pathlib.Path(folder)
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']} instead of {_FORMAT}")
        settings = GridSettings(**header["settings"])
        arrays = {name: _open(folder / f"{name}.npy") for name in _ARRAYS}
        index = CannIndex(settings, header["dimension"], header["count"], **arrays)
        parts = len(settings.radii()) * settings.grids
        if len(index.offsets) != parts + 1 or index.offsets[-1] != len(index.keys):
            raise ValueError("its parts do not fit together")
        if len(index.keys) != len(index.images):
            raise ValueError("keys and images differ in number")
    except FileNotFoundError as error:
        rule = f"must be a folder with {pathlib.Path(error.filename).name}"
        raise UserError("CANN index", str(folder), rule) from None
    except (OSError, ValueError, KeyError, TypeError, EOFError) as error:
        raise UserError("CANN index", str(folder), f"must be a whole index ({error})") from error
    return index


def _open(path: pathlib.Path) -> np.ndarray:
    """A memory map, or an empty array, which cannot be mapped."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError:
        return np.load(path, allow_pickle=False)
