"""The embedded data set: rendered landmarks that need no download."""

from delg_jax.data.embedded.builder import EmbeddedConfig, EmbeddedLandmarks, prepare
from delg_jax.data.embedded.camera import homography_between
from delg_jax.data.embedded.catalogue import retrieval, training
from delg_jax.data.embedded.source import EmbeddedSource, ground_truth, source

__all__ = [
    "EmbeddedConfig",
    "EmbeddedLandmarks",
    "EmbeddedSource",
    "ground_truth",
    "homography_between",
    "prepare",
    "retrieval",
    "source",
    "training",
]
