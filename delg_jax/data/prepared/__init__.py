"""Published data sets, prepared once by TFDS as array_record and read in random access."""

from delg_jax.data.prepared.builder import ImageSetConfig
from delg_jax.data.prepared.catalogue import is_prepared, retrieval, training, with_distractors
from delg_jax.data.prepared.distractors import RevisitedDistractors
from delg_jax.data.prepared.gldv1 import GoogleLandmarksV1
from delg_jax.data.prepared.gldv2 import GoogleLandmarksV2, GoogleLandmarksV2Config
from delg_jax.data.prepared.image_folder import ImageFolder
from delg_jax.data.prepared.pairs import LandmarkPairs
from delg_jax.data.prepared.preparation import prepare
from delg_jax.data.prepared.revisited import RevisitedOxford, RevisitedParis
from delg_jax.data.prepared.source import PreparedSource

__all__ = [
    "GoogleLandmarksV1",
    "GoogleLandmarksV2",
    "GoogleLandmarksV2Config",
    "ImageFolder",
    "ImageSetConfig",
    "LandmarkPairs",
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
