"""Indices of approximate local search on disk: a folder of memory maps."""

import dataclasses
import json
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable

import numpy as np

from delg_jax import upgrades
from delg_jax.array_files import open_array
from delg_jax.errors import UserError
from delg_jax.search.cann import CannIndex
from delg_jax.search.cells import CellIndex, CellSettings
from delg_jax.search.random_grids import GridSettings

Index = CannIndex | CellIndex

_KINDS = {"cann": (CannIndex, GridSettings), "cells": (CellIndex, CellSettings)}
# Settings that older indices of a kind do not say
_BEFORE = {"cells": {"rounds": upgrades.ADDED["search.cells.rounds"]}}
_PLAIN = ("settings", "dimension", "count")  # fields that are no arrays
_HEADER = "index.json"
_FORMAT = 2


def save(index: Index, folder: str | pathlib.Path) -> None:
    """Writes an index; the folder appears under its name only when it is whole.

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
        for name in _arrays(type(index)):
            np.save(new / f"{name}.npy", getattr(index, name))
        header = {
            "format": _FORMAT,
            "kind": next(name for name, (kind, _) in _KINDS.items() if isinstance(index, kind)),
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


def load(folder: str | pathlib.Path) -> Index:
    """Opens an index that `save` wrote; its arrays are read from disk where they are needed.

    Raises:
      UserError: if the folder is missing, damaged or not such an index.
    """
    folder = pathlib.Path(folder)
    try:
        header = json.loads((folder / _HEADER).read_text(encoding="utf-8"))
        if header["format"] != _FORMAT:
            raise ValueError(f"format {header['format']} instead of {_FORMAT}")
        kind, settings = _KINDS[header["kind"]]
        arrays = {name: open_array(folder / f"{name}.npy") for name in _arrays(kind)}
        said = _BEFORE.get(header["kind"], {}) | header["settings"]
        plain = settings(**said), header["dimension"], header["count"]
        index = kind(*plain, **arrays)
        index.check()
    except FileNotFoundError as error:
        rule = f"must be a folder with {pathlib.Path(error.filename).name}"
        raise UserError("search index", str(folder), rule) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        rule = f"must be a whole index ({error}); delete it, and it is built again"
        raise UserError("search index", str(folder), rule) from error
    return index


def kept(
    folder: str | pathlib.Path | None,
    settings: GridSettings | CellSettings,
    shape: tuple[int, ...],
    build: Callable[[], Index],
) -> Index:
    """The index in a folder if it is of these settings, else a new one, which is put there.

    Args:
      folder: of the index, in a place that is claimed for the features; None to keep it nowhere.
      settings: of the index.
      shape: of the descriptors, [N, K, D].
      build: makes the index.

    Returns:
      The index, mapped from disk if there is a folder.

    Raises:
      UserError: if the folder holds a damaged index.
    """
    if folder is None:
        return build()
    folder = pathlib.Path(folder)
    if folder.exists():
        found = load(folder)
        if (found.settings, found.count, found.dimension) == (settings, shape[0], shape[2]):
            return found
    save(build(), folder)
    return load(folder)


def _arrays(kind: type[Index]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in _PLAIN]
