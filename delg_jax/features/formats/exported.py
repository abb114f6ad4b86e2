"""Export of the features of an experiment as files of another system."""

import contextlib
import pathlib
import posixpath
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NamedTuple

import ml_collections
import numpy as np

from delg_jax import file_names, temporaries, workdir
from delg_jax.data.sources import ImageSource, file_of
from delg_jax.errors import UserError, require_choice
from delg_jax.features.experiment import Extracted, extract, has_global, has_local
from delg_jax.features.extraction import Loaded, Loader
from delg_jax.features.formats import ames, delf, hloc
from delg_jax.features.formats.delf import GLOBAL_SUFFIX, LOCAL_SUFFIX
from delg_jax.features.image_sets import query_boxes
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.store import FeatureStore, Rows
from delg_jax.progress import Progress

KINDS = ("hloc", "delf", "ames")

_ROUNDING = 2e-3  # of descriptors in half precision


class _Image(NamedTuple):
    """Features of one image, None if the experiment has none; `store` is the name of its store."""

    store: str
    name: str
    descriptor: np.ndarray | None
    local: LocalFeatures | None
    read_size: Callable[[], tuple[int, int] | None]


class _StoreFeatures(NamedTuple):
    """The features of one store, the loader of its images, and the folder of the data set."""

    name: str
    store: FeatureStore
    descriptors: Rows | None
    local: LocalFeatures | None
    loader: Loader
    source: ImageSource
    root: str

    def image(self, index: int) -> _Image:
        """The features of one image."""
        return _Image(
            self.name,
            self.store.names[index],
            None if self.descriptors is None else self.descriptors[index],
            None if self.local is None else _without_padding(self.local, index),
            lambda: _size(self.loader.load(index)[0]),
        )

    def path(self, index: int) -> str:
        """The file of an image relative to the data set, as hloc names it; else its name."""
        file = file_of(self.source, index)
        if not file or not self.root or not pathlib.Path(file).is_relative_to(self.root):
            return self.store.names[index]
        return file_names.to_text(pathlib.Path(file).relative_to(self.root).as_posix())


def export_features(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    kind: str,
    output: str | pathlib.Path,
    overwrite: bool = False,
) -> pathlib.Path:
    """Extracts missing features, and writes all features for another system atomically.

    `config.extract.imported_local` and `imported_global` can read the output. Skipped images are
    left out; `ames`, whose ground truth counts rows, has rows of padding for them. Keypoints and
    size of a cropped query are those of the crop. `hloc` and `ames` name an image by its path below
    `config.data.root`, where it is a file there.

    Args:
      config: the whole tree.
      workdir: of the features.
      kind: `hloc`, one HDF5 file of all images; `delf`, folders `database` and `queries` with
        files `NAME.delg_local` and `NAME.delg_global`; or `ames`, a folder of HDF5 files with one
        array of all images, in the order of the data set.
      output: the file or folder.
      overwrite: whether an existing output, and features of another configuration, are replaced
        instead of refused.

    Returns:
      The file or folder.

    Raises:
      UserError: if the output cannot be written, if two images with different features have the
        same name, such as a query with two boxes, or if extraction fails.
    """
    require_choice("kind of export", kind, KINDS)
    path = pathlib.Path(output)
    _check_output(kind, path, overwrite)
    extracted = extract(config, workdir, overwrite)
    stores = _store_features(config, extracted)
    if kind == "ames":
        with Progress(f"export {path.name}", sum(len(each.store) for each in stores)) as progress:
            _write_ames(path, stores, config.extract.local_encoding == "sign", progress)
        return path
    write = _write_hloc if kind == "hloc" else _write_delf
    chosen = _to_write(stores, kind)
    with Progress(f"export {path.name}", len(chosen)) as progress:
        write(path, _counted(_images(chosen, kind), progress))
    return path


def _check_output(kind: str, path: pathlib.Path, overwrite: bool) -> None:
    if kind == "hloc" and (path.suffix not in ames.SUFFIXES or path.is_dir()):
        raise UserError("output", str(path), f"must be a file {' or '.join(ames.SUFFIXES)}")
    if path.exists() and not overwrite:
        raise UserError("output", str(path), "exists; --overwrite replaces it")
    if kind != "hloc" and path.exists():
        ours = (LOCAL_SUFFIX, GLOBAL_SUFFIX) if kind == "delf" else (ames.SUFFIXES[-1], ".txt")
        if not path.is_dir() or any(f.suffix not in ours for f in path.rglob("*") if f.is_file()):
            rule = f"must be a folder of nothing but {' and '.join(ours)} files to be replaced"
            raise UserError("output", str(path), rule)


def _store_features(
    config: ml_collections.ConfigDict, extracted: Extracted
) -> list[_StoreFeatures]:
    data, boxes = extracted.data, query_boxes(config, extracted.data)
    return [
        _StoreFeatures(
            name,
            store,
            store.global_descriptors() if has_global(config) else None,
            store.local_features(0) if has_local(config) else None,
            Loader(source, crops, 0, config.data.min_side, config.data.max_pixels),
            source,
            str(pathlib.Path(config.data.root).resolve()) if config.data.root else "",
        )
        for name, store, source, crops in (
            ("database", extracted.database, data.database, None),
            ("queries", extracted.queries, data.queries, boxes),
        )
        if len(store)  # the data set images may have no queries
    ]


def _to_write(stores: list[_StoreFeatures], kind: str) -> list[tuple[_StoreFeatures, int]]:
    """Images to write: not skipped, and one of each name; its duplicates must have equal features.

    An HDF5 file holds database and queries together, so that they share names.
    """
    first: dict[tuple[str, str], tuple[_StoreFeatures, int]] = {}
    for features in stores:
        skipped = features.store.skipped_places()
        for index, name in enumerate(features.store.names):
            if index in skipped:
                continue
            own = features.path(index) if kind == "hloc" else name
            key = ("" if kind == "hloc" else features.name, posixpath.normpath(own))
            before, place = first.setdefault(key, (features, index))
            same = before is features and place == index
            if not same and not _equal(before.image(place), features.image(index)):
                what = "HDF5 file" if kind == "hloc" else "folder"
                remedy = "give each its own" if before is features else "export as delf"
                rule = f"is the name of two images with different features, which one {what} "
                rule += f"cannot hold; {remedy}"
                raise UserError("image", name, rule)
    return list(first.values())


def _images(chosen: list[tuple[_StoreFeatures, int]], kind: str) -> Iterator[_Image]:
    for features, index in chosen:
        image = features.image(index)
        yield image._replace(name=features.path(index)) if kind == "hloc" else image


def _without_padding(local: LocalFeatures, index: int) -> LocalFeatures:
    count = int(local.mask[index].sum())
    return LocalFeatures(*(field[index, :count] for field in local))


def _size(loaded: Loaded | str) -> tuple[int, int] | None:
    """Width and height; None if the image, whose features were imported, cannot be read here."""
    return None if isinstance(loaded, str) else (loaded.size[1], loaded.size[0])


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
    """Whether features agree up to rounding, which depends on the batch of an image."""
    pairs: list[tuple[Any, Any]] = []
    if one.descriptor is not None:
        pairs.append((one.descriptor, other.descriptor))
    if one.local is not None and other.local is not None:
        pairs += zip(one.local, other.local, strict=True)
    return all(
        a.shape == b.shape and np.allclose(a, b, rtol=_ROUNDING, atol=_ROUNDING) for a, b in pairs
    )


def _write_delf(path: pathlib.Path, images: Iterable[_Image]) -> None:
    with _replacing_folder(path) as folder:
        for image in images:
            target = folder / image.store / image.name
            if not target.resolve().is_relative_to(folder / image.store):
                raise UserError(
                    "image", image.name, "must not lead out of the folder of the export"
                )
            if image.local is not None:
                delf.write_local(f"{target}{LOCAL_SUFFIX}", image.local)
            if image.descriptor is not None:
                delf.write_global(f"{target}{GLOBAL_SUFFIX}", image.descriptor)


def _write_ames(
    path: pathlib.Path, stores: list[_StoreFeatures], bits: bool, progress: Progress
) -> None:
    with _replacing_folder(path) as folder:
        for features in stores:
            local, pooled = features.local, features.descriptors
            dimensions = (
                0 if local is None else local.descriptors.shape[-1],
                0 if pooled is None else pooled.shape[-1],
            )
            most = 0 if local is None else local.mask.shape[1]
            writer = ames.ArrayWriter(
                folder, features.name, len(features.store), most, dimensions, bits
            )
            writer.write(_ames_images(features, progress))


def _ames_images(features: _StoreFeatures, progress: Progress) -> Iterator[ames.Image]:
    skipped, sizes = features.store.skipped_places(), features.store.sizes().tolist()
    for index in range(len(features.store)):
        image = features.image(index)
        descriptor, local = (None, None) if index in skipped else (image.descriptor, image.local)
        yield ames.Image(features.path(index), descriptor, local, sizes[index])
        progress.advance()


@contextlib.contextmanager
def _replacing_folder(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary folder, which becomes `path` if the block succeeds."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporaries.beside(path, folder=True) as temporary:
        folder = temporary.resolve() / path.name
        folder.mkdir()
        yield folder
        workdir.flush(folder)
        if path.exists():  # at no time is a part of it there
            workdir.move(path, folder.with_name("replaced"))
        workdir.move(folder, path)
