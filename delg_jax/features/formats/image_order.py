"""Matching of image names, and order of features, in files of other systems."""

import posixpath

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


def best_first(features: LocalFeatures) -> LocalFeatures:
    """Sorts the features of one image by score, best first; equal scores keep their order.

    Args:
      features: LocalFeatures [K] without padding.

    Returns:
      LocalFeatures [K].
    """
    order = np.argsort(-np.asarray(features.scores), kind="stable")
    return LocalFeatures(*(np.asarray(field)[order] for field in features))
