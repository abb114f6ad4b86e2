"""Local features as padded arrays with a mask, the input of all kernels."""

from typing import NamedTuple

import jax
import numpy as np

Array = jax.Array | np.ndarray


class LocalFeatures(NamedTuple):
    """Local features of one image, or of a batch with a leading axis on every field.

    Attributes:
      locations: float32 [K, 2], (y, x) in pixels of the original image.
      scales: float32 [K], 1 / (scale of the pyramid level), so larger means a larger region.
      scores: float32 [K], attention, larger is better, best first.
      descriptors: float32 or float16 [K, D], unit norm.
      mask: bool [K], False on padding.
    """

    locations: Array
    scales: Array
    scores: Array
    descriptors: Array
    mask: Array


def strongest(features: LocalFeatures, count: int) -> LocalFeatures:
    """Keeps the `count` best features of each image; features are stored best first.

    Args:
      features: LocalFeatures with leading axes [..., K].
      count: maximum number of features; 0 keeps all.

    Returns:
      LocalFeatures [..., min(count, K)].
    """
    if count <= 0 or count >= features.mask.shape[-1]:
        return features
    return LocalFeatures(
        locations=features.locations[..., :count, :],
        scales=features.scales[..., :count],
        scores=features.scores[..., :count],
        descriptors=features.descriptors[..., :count, :],
        mask=features.mask[..., :count],
    )
