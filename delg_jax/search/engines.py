"""Engines of local search: a database, ready to be compared with queries."""

from collections.abc import Callable

import jax
import numpy as np

from delg_jax.search import local_search, rarity
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray

# From descriptors [Q, Kq, D] and their mask [Q, Kq] to similarities float32 [Q, N].
LocalSearch = Callable[[Array, Array], np.ndarray]


def exact(
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    rarity_images: int = 0,
) -> LocalSearch:
    """The engine of `local_search.similarity`.

    Args:
      database: float [N, K, D], unit norm; array or rows on disk.
      mask: bool [N, K].
      kernel: of the similarity.
      block: database images in a block of similarities.
      rarity_images: evenly spaced images of the database on which the `rarity` of query features
        is estimated; 0 = every feature weighs the same.

    Returns:
      The search.
    """
    chosen = np.unique(np.linspace(0, len(database) - 1, rarity_images).astype(int))
    chosen = chosen if len(database) else chosen[:0]
    sample, sample_mask = database[chosen], mask[chosen]

    def search(queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities [Q, N]."""
        weights = None
        if rarity_images:
            weights = rarity.weights(queries, query_mask, sample, sample_mask, kernel, block)
        return local_search.similarity(queries, query_mask, database, mask, kernel, block, weights)

    return search
