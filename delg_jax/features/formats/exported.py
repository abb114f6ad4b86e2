"""Writes the features of an experiment as files of another system."""

import pathlib
import posixpath
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from delg_jax.errors import UserError, require_choice
from delg_jax.features.extract import Extracted, extract, has_global, has_local
from delg_jax.features.extraction import Loader
from delg_jax.features.formats import delf, hloc
from delg_jax.features.formats.delf_folder import GLOBAL_SUFFIX, LOCAL_SUFFIX
from delg_jax.features.formats.imported import HDF5_SUFFIXES
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.network import query_boxes
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress

KINDS = ("hloc", "delf")

_ROUNDING = 2e-3  # of descriptors in half precision


class _Image(NamedTuple):
    """Features of one image, None where the experiment has none; `part` names its store."""

    part: str
    name: str
    descriptor: np.ndarray | None
    local: LocalFeatures | None
    read_size: Callable[[], tuple[int, int] | None]


class _Part(NamedTuple):
    """One store of an experiment, and what its images are read with."""

    name: str
    store: FeatureStore
    descriptors: Sequence[np.ndarray] | None
    local: LocalFeatures | None
    load: Loader

    def image(self, index: int) -> _Image:
        """The features of one image."""
        return _Image(
            self.name,
            self.store.names[index],
            None if self.descriptors is None else self.descriptors[index],
            None if self.local is None else _without_padding(self.local, index),
            lambda: _size(self.load(index)),
        )


def export_features(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    kind: str,
    output: str | pathlib.Path,
    overwrite: bool = False,
) -> pathlib.Path:
    """Extracts what is missing, and writes all features for another system, whole or not at all.

    What is written can be read back by `config.extract.imported_local` and `imported_global`.
    Skipped images are left out. Keypoints and size of a query that was cropped are of the crop.

    Args:
      config: the whole tree.
      workdir: of the features.
      kind: `hloc`, one HDF5 file of all images; or `delf`, a folder with the subfolders `database`
        and `queries` of files `NAME.delg_local` and `NAME.delg_global`.
      output: the file or folder.
      overwrite: whether an output that exists, and features of another configuration, are replaced
        instead of refused.

    Returns:
      The file or folder.

    Raises:
      UserError: for an output that cannot be written, two images with different features that
        would get one name, as a query with two boxes, or whatever extraction meets.
    """
    require_choice("kind of export", kind, KINDS)
    path = pathlib.Path(output)
    _check_output(kind, path, overwrite)
    extracted = extract(config, workdir, overwrite)
    write = _write_hloc if kind == "hloc" else _write_delf
    chosen = _to_write(_parts(config, extracted), kind)
    with Progress(f"export {path.name}", len(chosen)) as progress:
        write(path, _counted((part.image(index) for part, index in chosen), progress))
    return path


def _check_output(kind: str, path: pathlib.Path, overwrite: bool) -> None:
    if kind == "hloc" and (path.suffix not in HDF5_SUFFIXES or path.is_dir()):
        raise UserError("output", str(path), f"must be a file {' or '.join(HDF5_SUFFIXES)}")
    if path.exists() and not overwrite:
        raise UserError("output", str(path), "exists; --overwrite replaces it")
    if kind == "delf" and path.exists():
        ours = (LOCAL_SUFFIX, GLOBAL_SUFFIX)
        if not path.is_dir() or any(f.suffix not in ours for f in path.rglob("*") if f.is_file()):
            rule = f"must be a folder of nothing but {' and '.join(ours)} files to be replaced"
            raise UserError("output", str(path), rule)


def _parts(config: ml_collections.ConfigDict, extracted: Extracted) -> list[_Part]:
    data, boxes = extracted.data, query_boxes(config, extracted.data)
    return [
        _Part(
            name,
            store,
            store.global_descriptors() if has_global(config) else None,
            store.local_features(0) if has_local(config) else None,
            Loader(source, config.data, 0, crops),
        )
        for name, store, source, crops in (
            ("database", extracted.database, data.database, None),
            ("queries", extracted.queries, data.queries, boxes),
        )
    ]


def _to_write(parts: list[_Part], kind: str) -> list[tuple[_Part, int]]:
    """The images that are not skipped, one of each name; others of the name must be equal to it.

    In an HDF5 file database and queries stand together, so that a name is of both.
    """
    first: dict[tuple[str, str], tuple[_Part, int]] = {}
    for part in parts:
        skipped = part.store.skipped_places()
        for index, name in enumerate(part.store.names):
            if index in skipped:
                continue
            key = ("" if kind == "hloc" else part.name, posixpath.normpath(name))
            before, place = first.setdefault(key, (part, index))
            same = before is part and place == index
            if not same and not _equal(before.image(place), part.image(index)):
                what = "HDF5 file" if kind == "hloc" else "folder"
                remedy = "give each its own" if before is part else "export as delf"
                rule = f"is the name of two images with different features, which one {what} "
                rule += f"cannot hold; {remedy}"
                raise UserError("image", name, rule)
    return list(first.values())


def _without_padding(local: LocalFeatures, index: int) -> LocalFeatures:
    count = int(local.mask[index].sum())
    return LocalFeatures(*(field[index, :count] for field in local))


def _size(loaded: tuple[np.ndarray, float] | str) -> tuple[int, int] | None:
    """Width and height, or None for an image that only the system it was imported from can read."""
    return None if isinstance(loaded, str) else (loaded[0].shape[1], loaded[0].shape[0])


def _counted(images: Iterable[_Image], progress: Progress) -> Iterator[_Image]:
    for image in images:
        yield image
        progress.advance()


def _write_hloc(path: pathlib.Path, images: Iterable[_Image]) -> None:
    with hloc.writing(path) as writer:
        for image in images:
            if image.local is not None:
                writer.write(image.name, image.local, image.read_size())
            if image.descriptor is not None:
                writer.write_global(image.name, image.descriptor)


def _equal(one: _Image, other: _Image) -> bool:
    """Whether features agree, up to the rounding that an image's company in a batch changes."""
    pairs = [(one.descriptor, other.descriptor)] if one.descriptor is not None else []
    pairs += list(zip(one.local, other.local, strict=True)) if one.local is not None else []
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING) for a, b in pairs
    )


def _write_delf(path: pathlib.Path, images: Iterable[_Image]) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=path.parent, prefix=f".{path.name}.") as temporary:
        folder = pathlib.Path(temporary).resolve() / path.name
        folder.mkdir()
        for image in images:
            target = folder / image.part / image.name
            if not target.resolve().is_relative_to(folder / image.part):
                raise UserError("image", image.name, "leads out of the folder of the export")
            if image.local is not None:
                delf.write_local(f"{target}{LOCAL_SUFFIX}", image.local)
            if image.descriptor is not None:
                delf.write_global(f"{target}{GLOBAL_SUFFIX}", image.descriptor)
        if path.exists():
            shutil.rmtree(path)
        folder.rename(path)
