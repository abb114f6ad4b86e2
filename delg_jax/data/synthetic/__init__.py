"""The synthetic data set: rendered landmarks that need no download."""

from delg_jax.data.synthetic.camera import homography_between
from delg_jax.data.synthetic.datasets import (
    SyntheticConfig,
    SyntheticLandmarks,
    SyntheticSource,
    ground_truth,
    prepare,
    retrieval,
    source,
    training,
)

__all__ = [
    "SyntheticConfig",
    "SyntheticLandmarks",
    "SyntheticSource",
    "ground_truth",
    "homography_between",
    "prepare",
    "retrieval",
    "source",
    "training",
]
