"""Detects a direction common to all local descriptors, which makes any two similar."""

import logging

import numpy as np

from delg_jax.features.local_features import LocalFeatures
from delg_jax.search.kernels import SimilarityKernel

_LOG = logging.getLogger(__name__)
_IMAGES = 100  # sampled
_SHARE = 0.5  # of the threshold; above it, unrelated descriptors often match


def mean_cosine(database: LocalFeatures, images: int = _IMAGES) -> float:
    """The mean cosine of two random descriptors, estimated on evenly spaced images.

    Args:
      database: LocalFeatures [N, K], unit norm; arrays or rows on disk.
      images: sampled, at most.

    Returns:
      The squared length of the mean descriptor; 0 if there are none.
    """
    count = len(database.mask)
    chosen = np.unique(np.linspace(0, count - 1, min(images, count)).astype(int))
    if not len(chosen):
        return 0.0
    mask = np.asarray(database.mask[chosen])
    descriptors = np.asarray(database.descriptors[chosen])[mask].astype(np.float32)
    mean = descriptors.sum(axis=0) / max(len(descriptors), 1)
    return float(mean @ mean)


def warn(database: LocalFeatures, kernel: SimilarityKernel) -> None:
    """Logs what to do if the descriptors are so similar that the kernel's threshold hardly selects.

    Args:
      database: LocalFeatures [N, K]; only floats are checked.
      kernel: of the local similarity.
    """
    if kernel.kind != "threshold" or database.descriptors.dtype.kind != "f":
        return
    cosine = mean_cosine(database)
    if cosine > _SHARE * kernel.threshold:
        _LOG.warning(
            "two local descriptors have a cosine of %.2f on average, so that "
            "config.search.threshold = %g hardly selects: set config.extract.pca_dim, which "
            "removes their common direction, or raise the threshold",
            cosine,
            kernel.threshold,
        )
