"""Names of images in files of other systems, which may carry a suffix that ours lack."""

import posixpath

import numpy as np

from delg_jax.data.image_files import SUFFIXES
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures

_SUFFIXES = (".jpg", ".jpeg", ".png", ".JPG")


class AbsentImageError(UserError):
    """A file of features lacks an image; `rule` is the reason, fit for `skipped.csv`."""


def spellings(name: str) -> list[str]:
    """How an image may be called elsewhere: as it is, with an image suffix, without its own."""
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
