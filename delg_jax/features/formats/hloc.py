"""Reads and writes the HDF5 files of hloc: one group per image, with one array per field."""

import contextlib
import pathlib
import posixpath
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from delg_jax import hdf5_files, workdir
from delg_jax.features.formats.image_order import (
    AbsentImageError,
    ImagePaths,
    best_first,
    spellings,
)
from delg_jax.features.local_features import LocalFeatures

_LARGEST = 2**32  # bytes of a field of one image
_FIELDS = ("keypoints", "descriptors", "scores", "scales", "global_descriptor")


@contextlib.contextmanager
def reading(path: str | pathlib.Path, folder: str = "") -> Iterator["HlocReader"]:
    """Opens a file to read.

    Args:
      path: of the HDF5 file.
      folder: whose images are preferred where a name fits several.

    Yields:
      The reader.

    Raises:
      UserError: if the file is missing or not HDF5, or the package h5py is not installed.
    """
    with hdf5_files.opened(path) as file:
        yield HlocReader(pathlib.Path(path), file, folder)


@contextlib.contextmanager
def writing(path: str | pathlib.Path) -> Iterator["HlocWriter"]:
    """Opens a file to write; it gets its name only if the block succeeds.

    Args:
      path: of the HDF5 file.

    Yields:
      The writer.

    Raises:
      UserError: if the package h5py is not installed.
    """
    h5py = hdf5_files.package()
    with (
        workdir.replacing(pathlib.Path(path)) as temporary,
        h5py.File(temporary, "w", locking=False) as file,  # `replacing` locks it
    ):
        yield HlocWriter(file)


class HlocReader:
    """Features by the names of images.

    A name matches itself, with or without an image suffix. Otherwise it matches the only path in
    the file that ends with it, or that it ends with.

    Args:
      path: of the file, for messages.
      file: the open `h5py.File`.
      folder: whose images are preferred where a name fits several.
    """

    def __init__(self, path: pathlib.Path, file: Any, folder: str = "") -> None:
        self._path, self._file, self._folder = path, file, folder
        self._paths: ImagePaths | None = None

    def read_local(self, name: str) -> LocalFeatures:
        """Reads the local features of one image.

        Args:
          name: of the image.

        Returns:
          LocalFeatures [K], best first; descriptors float32, not normalised. Scores and scales
          that the file lacks are 1.

        Raises:
          AbsentImageError: if the file lacks the image.
          UserError: if the image's data is damaged.
        """
        with hdf5_files.naming(self._path, f"image {name}"):
            group = self._find(name)
            keypoints = _read(group, "keypoints", (None, 2))
            count = len(keypoints)
            scales, scores = (
                _read(group, field, (count,))
                if hdf5_files.has(group, field)
                else np.ones(count, np.float32)
                for field in ("scales", "scores")
            )
            descriptors = _read(group, "descriptors", (None, count)).T
        mask = np.ones(count, bool)
        return best_first(LocalFeatures(keypoints[:, ::-1], scales, scores, descriptors, mask))

    def read_global(self, name: str) -> np.ndarray:
        """Reads the global descriptor of one image.

        Args:
          name: of the image.

        Returns:
          float32 [D], not normalised.

        Raises:
          AbsentImageError: if the file lacks the image.
          UserError: if the image's data is damaged.
        """
        with hdf5_files.naming(self._path, f"image {name}"):
            return _read(self._find(name), "global_descriptor", (None,))

    def _find(self, name: str) -> Mapping[str, Any]:
        for spelling in spellings(name):
            group = hdf5_files.member(self._file, spelling)
            if _is_image(group):
                return group
        if self._paths is None:
            items: list[str] = []
            self._file.visit(items.append)
            folders = {posixpath.split(item)[0] for item in items if _is_field(item)}
            self._paths = ImagePaths(folders)
        found = self._paths.find(name, self._folder)
        if len(found) == 1:
            return hdf5_files.member(self._file, found[0])
        several = f": it may be {' or '.join(found[:3])}" if found else ""
        raise AbsentImageError("image", name, f"is not in {self._path}{several}")


class HlocWriter:
    """Writes features of images; descriptors keep their precision.

    Args:
      file: the open `h5py.File`.
    """

    def __init__(self, file: Any) -> None:
        self._file = file

    def write(
        self, name: str, features: LocalFeatures, image_size: tuple[int, int] | None = None
    ) -> None:
        """Writes the local features of one image.

        Args:
          name: of the image; slashes make nested groups.
          features: LocalFeatures [K]; masked ones are left out.
          image_size: width and height in pixels, which hloc's matchers need.
        """
        group = self._file.require_group(name)
        locations, scales, scores, descriptors = (
            np.asarray(field)[features.mask] for field in features[:4]
        )
        group.create_dataset("keypoints", data=locations[:, ::-1])
        group.create_dataset("scores", data=scores)
        group.create_dataset("scales", data=scales)
        group.create_dataset("descriptors", data=descriptors.T)
        if image_size is not None:
            group.create_dataset("image_size", data=np.array(image_size))

    def write_global(self, name: str, descriptor: np.ndarray) -> None:
        """Writes the global descriptor [D] of one image."""
        self._file.require_group(name).create_dataset("global_descriptor", data=descriptor)


def _is_field(path: str) -> bool:
    folder, _, field = path.rpartition("/")
    return bool(folder) and field in _FIELDS


def _is_image(item: Any) -> bool:
    """Whether an item of the file is the group of an image; other groups only hold groups."""
    return isinstance(item, Mapping) and any(hdf5_files.has(item, field) for field in _FIELDS)


def _read(group: Mapping[str, Any], field: str, shape: tuple[int | None, ...]) -> np.ndarray:
    """A dataset as float32; None in `shape` is any size. Raises a ValueError if it is invalid."""
    dataset = hdf5_files.member(group, field)
    if dataset is None:
        raise ValueError(f"it has no {field}")
    if dataset.nbytes > _LARGEST:
        raise ValueError(f"{field} has {dataset.nbytes} bytes, more than {_LARGEST}")
    with np.errstate(over="ignore"):  # overflow becomes infinite, which is refused below
        array = np.asarray(hdf5_files.read(dataset, field), np.float32)
    fits = [size in (None, found) for size, found in zip(shape, array.shape, strict=False)]
    if array.ndim != len(shape) or not all(fits):
        wanted = ", ".join("any" if size is None else str(size) for size in shape)
        raise ValueError(f"{field} must have the shape [{wanted}], not {list(array.shape)}")
    if not np.isfinite(array).all():
        raise ValueError(f"{field} must be finite numbers")
    return array
