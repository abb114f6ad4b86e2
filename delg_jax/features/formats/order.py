"""The order that every kernel relies on, for features of systems that keep another."""

import numpy as np

from delg_jax.features.local_features import LocalFeatures


def best_first(features: LocalFeatures) -> LocalFeatures:
    """Sorts the features of one image by score, best first; equal scores keep their order.

    Args:
      features: LocalFeatures [K] without padding.

    Returns:
      LocalFeatures [K].
    """
    order = np.argsort(-np.asarray(features.scores), kind="stable")
    return LocalFeatures(*(np.asarray(field)[order] for field in features))
