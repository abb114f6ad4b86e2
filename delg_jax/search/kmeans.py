"""Spherical k-means of descriptors, from features drawn at random.

Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 42, 2001.
"""

import jax
import numpy as np

from delg_jax.search.batching import starts

Array = jax.Array | np.ndarray

_SAMPLED = 64  # features per centre in a round of k-means, about
_IMAGES = 32  # read at a time
_FEATURES = 1024  # compared with all centres at a time


def centres(
    descriptors: Array, present: np.ndarray, count: int, rounds: int, seed: int
) -> np.ndarray:
    """Draws features of a database as centres and refines them by k-means.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      present: bool [N, K].
      count: centres, C; at most as many as there are features.
      rounds: of k-means, on about 64 C features of images drawn at random; 0 keeps the features
        drawn.
      seed: of the random choices.

    Returns:
      Unit vectors float32 [min(C, features), D].
    """
    places = np.flatnonzero(present)
    drawn = np.sort(
        np.random.default_rng(seed).choice(places, min(count, len(places)), replace=False)
    )
    image, feature = np.divmod(drawn, max(present.shape[1], 1))
    rows = [np.asarray(descriptors[i : i + 1])[0, f] for i, f in zip(image, feature, strict=True)]
    found = np.array(rows, np.float32).reshape(-1, descriptors.shape[2])
    sample = _sampled_images(present, len(found), seed)
    for _ in range(rounds if len(found) else 0):
        found = _updated(found, descriptors, present, sample)
    return found


def nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre of the largest inner product; ties go to the lower index.

    Args:
      features: float [F, D].
      centres: float32 [C, D], at least one.

    Returns:
      int64 [F].
    """
    found = np.zeros(len(features), np.int64)
    for start in starts(len(features), _FEATURES):
        some = np.asarray(features[start : start + _FEATURES], np.float32)
        found[start : start + _FEATURES] = (some @ centres.T).argmax(axis=1)
    return found


def _sampled_images(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Images drawn at random, ascending, with about `_SAMPLED` features for each centre."""
    order = np.random.default_rng([seed, 1]).permutation(len(present))
    features = np.cumsum(present.sum(axis=1)[order])
    return np.sort(order[: np.searchsorted(features, _SAMPLED * count) + 1])


def _updated(
    centres: np.ndarray, descriptors: Array, present: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """The direction of the sum of the features nearest to each centre; without any, it stays."""
    sums = np.zeros_like(centres)
    for start in starts(len(images), _IMAGES):
        some = images[start : start + _IMAGES]
        rows = np.asarray(descriptors[some])[present[some]].astype(np.float32)
        if len(rows):
            add_to(sums, rows, nearest(rows, centres))
    return directions(sums, centres)


def add_to(sums: np.ndarray, features: np.ndarray, cells: np.ndarray) -> None:
    """Adds features float32 [F, D], at least one, to the sums [C, D] of their cells int [F]."""
    order = np.argsort(cells, kind="stable")
    filled, firsts = np.unique(cells[order], return_index=True)
    sums[filled] += np.add.reduceat(features[order], firsts, axis=0)


def directions(sums: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The sums [C, D] with unit norm; a centre [C, D] whose sum is 0 stays."""
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(norms > 0.0, sums / np.where(norms > 0.0, norms, 1.0), centres)
