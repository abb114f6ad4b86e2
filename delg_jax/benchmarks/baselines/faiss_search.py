"""Search with faiss, on all cores."""

import os
from collections.abc import Callable
from typing import Any

import numpy as np

from delg_jax.benchmarks.case import import_peer


def flat(database: np.ndarray) -> Any:
    """Returns an IndexFlatIP of the rows float32 [N, D]."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database)
    return index


def flat_bits(database: np.ndarray) -> Any:
    """Returns an IndexBinaryFlat of the rows uint8 [N, D / 8]."""
    faiss = _faiss()
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.add(database)
    return index


def voted(
    index: Any,
    query: np.ndarray,
    features: int,
    images: int,
    nearest: int,
    vote: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Computes the similarity to every image from the nearest features of each query feature.

    It is below the exact similarity where an image's best feature is not among the nearest.

    Args:
      index: of the features of the images, image after image.
      query: features [Kq, ...].
      features: per image.
      images: N.
      nearest: number of neighbours to search for.
      vote: from the values that the index returns [Kq, nearest] to votes.

    Returns:
      float32 [N].
    """
    found, rows = index.search(query, nearest)
    owners = np.arange(len(query))[:, None] * images + rows // features
    # Neighbours come best first; the first of an image is its best feature
    codes, first = np.unique(owners.ravel(), return_index=True)
    votes = vote(found).ravel()[first]
    return np.bincount(codes % images, votes, images).astype(np.float32) / len(query)


def _faiss() -> Any:
    faiss = import_peer("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    return faiss
