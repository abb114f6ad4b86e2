"""Centres of the cells of descriptors: features drawn at random, then spherical k-means.

Dhillon and Modha, "Concept decompositions for large sparse text data using clustering", Machine
Learning 42, 2001.
"""

import numpy as np

from delg_jax.search.batching import starts

_SEEN = 64  # features for each centre that a round of k-means looks at, about
_IMAGES = 32  # read at a time
_ROWS = 1024  # features compared with all centres at a time


def draw(
    descriptors: np.ndarray, present: np.ndarray, count: int, rounds: int, seed: int
) -> np.ndarray:
    """Draws features of a database and moves them to where its features are.

    Args:
      descriptors: float [N, K, D], unit norm; array, memory map or rows on disk.
      present: bool [N, K].
      count: centres, C; at most as many as there are features.
      rounds: of k-means, on about 64 C features of images drawn at random; 0 for the features that
        were drawn.
      seed: of the draws.

    Returns:
      Unit vectors float32 [min(C, features), D].
    """
    places = np.flatnonzero(present)
    drawn = np.sort(
        np.random.default_rng(seed).choice(places, min(count, len(places)), replace=False)
    )
    image, feature = np.divmod(drawn, max(present.shape[1], 1))
    centres = [
        np.asarray(descriptors[i : i + 1])[0, f] for i, f in zip(image, feature, strict=True)
    ]
    centres = np.array(centres, np.float32).reshape(-1, descriptors.shape[2])
    seen = _images(present, len(centres), seed)
    for _ in range(rounds if len(centres) else 0):
        centres = _moved(centres, descriptors, present, seen)
    return centres


def nearest(features: np.ndarray, centres: np.ndarray) -> np.ndarray:
    """The centre of the largest inner product; of equal ones the first.

    Args:
      features: float [F, D].
      centres: float32 [C, D], at least one.

    Returns:
      int64 [F].
    """
    found = np.zeros(len(features), np.int64)
    for start in starts(len(features), _ROWS):
        some = np.asarray(features[start : start + _ROWS], np.float32)
        found[start : start + _ROWS] = (some @ centres.T).argmax(axis=1)
    return found


def _images(present: np.ndarray, count: int, seed: int) -> np.ndarray:
    """Images drawn at random, ascending, with about `_SEEN` features for each centre."""
    order = np.random.default_rng([seed, 1]).permutation(len(present))
    features = np.cumsum(present.sum(axis=1)[order])
    return np.sort(order[: np.searchsorted(features, _SEEN * count) + 1])


def _moved(
    centres: np.ndarray, descriptors: np.ndarray, present: np.ndarray, images: np.ndarray
) -> np.ndarray:
    """The directions of the sums of the features nearest to each; without any, it stays."""
    sums = np.zeros_like(centres)
    for start in starts(len(images), _IMAGES):
        some = images[start : start + _IMAGES]
        rows = np.asarray(descriptors[some])[present[some]].astype(np.float32)
        if len(rows):
            cells = nearest(rows, centres)
            order = np.argsort(cells, kind="stable")
            filled, firsts = np.unique(cells[order], return_index=True)
            sums[filled] += np.add.reduceat(rows[order], firsts, axis=0)
    norms = np.linalg.norm(sums, axis=1, keepdims=True)
    return np.where(norms > 0.0, sums / np.where(norms > 0.0, norms, 1.0), centres)
