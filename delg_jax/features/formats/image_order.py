"""Matching of image names, and order of features, in files of other systems."""

import posixpath
from collections.abc import Iterable

import numpy as np

from delg_jax.data.image_files import SUFFIXES
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")


class AbsentImageError(UserError):
    """A feature file lacks an image; `rule` is the reason for `skipped.csv`."""


def spellings(name: str) -> list[str]:
    """Possible names of an image: as given, with an image suffix, without its own suffix."""
    stem, suffix = posixpath.splitext(name)
    return [
        name,
        *(name + more for more in _SUFFIXES),
        *([stem] if suffix.lower() in SUFFIXES else []),
    ]


class ImagePaths:
    """Images of a file by the ends of their paths.

    A name matches a path that ends with it, or that it ends with.

    Args:
      paths: of the images.
    """

    def __init__(self, paths: Iterable[str]) -> None:
        self._by_file_name: dict[str, list[str]] = {}
        for path in paths:
            self._by_file_name.setdefault(posixpath.basename(path), []).append(path)

    def find(self, name: str, folder: str = "") -> list[str]:
        """The paths that a name matches, in any of its spellings.

        Args:
          name: of the image.
          folder: of those that match, the paths in this folder are preferred.

        Returns:
          Sorted paths; one if the name is clear.
        """
        found = {path for spelling in spellings(name) for path in self._ends(spelling)}
        inside = {path for path in found if path.startswith(f"{folder}/")} if folder else set()
        return sorted(inside or found)

    def _ends(self, name: str) -> list[str]:
        candidates = self._by_file_name.get(posixpath.basename(name), [])
        ends = [(f"/{path}", f"/{name}") for path in candidates]
        return [path[1:] for path, own in ends if path.endswith(own) or own.endswith(path)]


def best_first(features: LocalFeatures) -> LocalFeatures:
    """Sorts the features of one image by score, best first; equal scores keep their order.

    Args:
      features: LocalFeatures [K] without padding.

    Returns:
      LocalFeatures [K].
    """
    order = np.argsort(-np.asarray(features.scores), kind="stable")
    return LocalFeatures(*(np.asarray(field)[order] for field in features))
