"""Published data sets, prepared once by TFDS as array_record and read in random access."""

from delg_jax.data.tfds_builders.builder import ImageFolder, ImageSetConfig, prepare
from delg_jax.data.tfds_builders.datasets import (
    PreparedSource,
    is_prepared,
    retrieval,
    training,
    with_distractors,
)
from delg_jax.data.tfds_builders.google_landmarks import (
    GoogleLandmarksV1,
    GoogleLandmarksV2,
    GoogleLandmarksV2Config,
)
from delg_jax.data.tfds_builders.revisited import (
    RevisitedDistractors,
    RevisitedOxford,
    RevisitedParis,
)

__all__ = [
    "GoogleLandmarksV1",
    "GoogleLandmarksV2",
    "GoogleLandmarksV2Config",
    "ImageFolder",
    "ImageSetConfig",
    "PreparedSource",
    "RevisitedDistractors",
    "RevisitedOxford",
    "RevisitedParis",
    "is_prepared",
    "prepare",
    "retrieval",
    "training",
    "with_distractors",
]
