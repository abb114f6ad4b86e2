"""Indices of approximate local search on disk: a folder of memory maps with checksums.

The checksums of the largest array are verified block by block as it is read, those of the others
on opening: 1 of 52 GB for 1M images with 200 features of 128 dimensions and the engine ivf.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Callable
from typing import Any, NamedTuple, TypeVar, cast

from delg_jax import json_files, locks, migrations, system_errors, temporaries, workdir
from delg_jax.array_files import CheckedArray, open_array, save_array
from delg_jax.errors import UserError
from delg_jax.features.store import FeatureStore
from delg_jax.search.cann import CannIndex, GridSettings
from delg_jax.search.ivf import IvfIndex, IvfSettings

Index = CannIndex | IvfIndex
T = TypeVar("T", CannIndex, IvfIndex)

_KINDS = {"cann": (CannIndex, GridSettings), "ivf": (IvfIndex, IvfSettings)}
# Settings that older indices lack
_ADDED = {"ivf": {"rounds": migrations.ADDED["search.ivf.rounds"]}}
_NO_ARRAYS = ("settings", "dimension", "count")  # fields
_MAPPED = ("descriptors", "keys")  # arrays whose blocks are verified when they are read
_HEADER = "index.json"
_FORMAT = 2
_SUBJECT, _REMEDY = "search index", "delete the folder to rebuild it"
_FIELDS = json_files.fields(
    {
        "format": json_files.count,
        "kind": json_files.text,
        "settings": json_files.each(json_files.number),
        "dimension": json_files.count,
        "count": json_files.count,
    },
    {"source": json_files.text},  # absent before arrays had checksums
)

_LOG = logging.getLogger(__name__)


class Place(NamedTuple):
    """Where an index is stored, and what it is made from.

    Attributes:
      folder: of the index.
      source: digest of the features.
      features: the store that they come from; None if there is none.
    """

    folder: pathlib.Path
    source: str
    features: FeatureStore | None = None


def save(index: Index, folder: str | pathlib.Path, source: str = "") -> None:
    """Writes an index; the folder gets its final name only when it is complete and on the disk.

    Of several jobs, one after the other writes.

    Args:
      index: may have been loaded from the same folder.
      folder: replaced if it exists.
      source: digest of the features that it is made from.
    """
    folder = pathlib.Path(folder)
    folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.after_others(folder):
        _save(index, folder, source)


def _save(index: Index, folder: pathlib.Path, source: str) -> None:
    with temporaries.beside(folder, folder=True) as temporary:
        new, old = temporary / "new", temporary / "old"
        new.mkdir()
        for name in _arrays(type(index)):
            save_array(new / f"{name}.npy", getattr(index, name))
        header = {
            "format": _FORMAT,
            "kind": next(name for name, (kind, _) in _KINDS.items() if isinstance(index, kind)),
            "settings": dataclasses.asdict(index.settings),
            "dimension": index.dimension,
            "count": index.count,
            "source": source,
        }
        workdir.write_json(new / _HEADER, header)
        workdir.flush(new)
        if folder.exists():
            workdir.move(folder, old)
        workdir.move(new, folder)
        workdir.flush_entries(folder.parent)


def load(folder: str | pathlib.Path) -> Index:
    """Opens an index that `save` wrote; its largest array stays on disk.

    Raises:
      UserError: if the folder is missing, damaged or not such an index.
    """
    folder = pathlib.Path(folder)
    return _load(folder, _header(folder))


def load_or_build(
    place: Place | None,
    settings: GridSettings | IvfSettings,
    shape: tuple[int, ...],
    build: Callable[[], T],
) -> T:
    """Loads an index if it has these settings and features, else builds and stores it.

    Args:
      place: of the index; None not to store it.
      settings: of the index.
      shape: of the descriptors, [N, K, D].
      build: builds the index.

    Returns:
      The index, memory-mapped if there is a place. Of several jobs, one builds it.

    Raises:
      UserError: if the stored index is damaged.
    """
    if place is None:
        return build()
    place.folder.parent.mkdir(parents=True, exist_ok=True)
    with locks.after_others(place.folder):
        found = _stored(place, settings, shape)
        if found is None:
            _save(build(), place.folder, place.source)
            found = load(place.folder)
    return cast(T, found)  # the settings tell the kind


def _stored(
    place: Place, settings: GridSettings | IvfSettings, shape: tuple[int, ...]
) -> Index | None:
    """The index at a place; None if it has other settings or features, or is absent."""
    if not place.folder.exists():
        return None
    header = _header(place.folder)
    if header.get("source") != place.source:
        made = "of other features" if "source" in header else "of an earlier version"
        _LOG.warning("%s: is %s, rebuilt", place.folder, made)
        return None
    found = _load(place.folder, header)
    same = (found.settings, found.count, found.dimension) == (settings, shape[0], shape[2])
    return found if same else None


def _header(folder: pathlib.Path) -> dict[str, Any]:
    """The description of an index; a UserError if it is missing or damaged."""
    header = json_files.read(folder / _HEADER, _SUBJECT, _FIELDS, _REMEDY)
    if header is None:
        raise UserError(_SUBJECT, str(folder), f"must be a folder with {_HEADER}")
    if header["format"] != _FORMAT or header["kind"] not in _KINDS:
        rule = f"has the unknown format {header['format']} or kind {header['kind']!r}"
        raise UserError(_SUBJECT, str(folder), f"{rule}; {_REMEDY}")
    return header


def _load(folder: pathlib.Path, header: dict[str, Any]) -> Index:
    name = header["kind"]
    kind, settings = _KINDS[name]
    try:
        stored = settings(**_ADDED.get(name, {}) | header["settings"])
        arrays = {array: _array(folder, array, "source" in header) for array in _arrays(kind)}
        index = kind(stored, header["dimension"], header["count"], **arrays)
        index.check()
    except FileNotFoundError as error:
        rule = f"must be a folder with {pathlib.Path(error.filename).name}; {_REMEDY}"
        raise UserError(_SUBJECT, str(folder), rule) from None
    except (OSError, ValueError, KeyError, TypeError, IndexError, OverflowError) as error:
        system_errors.reraise(error)
        rule = f"is damaged ({error}); {_REMEDY}"
        raise UserError(_SUBJECT, str(folder), rule) from error
    return index


def _array(folder: pathlib.Path, name: str, has_checksums: bool) -> Any:
    """An array, memory-mapped; without checksums if an earlier version wrote it."""
    path = folder / f"{name}.npy"
    if not has_checksums:
        return open_array(path)
    array = CheckedArray(path, _SUBJECT, _REMEDY)
    return array if name in _MAPPED else array[:]


def _arrays(kind: type[Index]) -> list[str]:
    return [field.name for field in dataclasses.fields(kind) if field.name not in _NO_ARRAYS]
