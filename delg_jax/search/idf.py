"""Inverse document frequency of local features, estimated on a sample of the database.

Features of leaves, windows and sky occur in most photographs and say little about the place (Sparck
Jones, 1972; Sivic, Zisserman, "Video Google", ICCV 2003). No vocabulary is needed: an image
contains a feature if one of its own features matches it.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search.batching import read_ahead
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import votes

Array = jax.Array | np.ndarray


def weights(
    queries: Array,
    query_mask: Array,
    sample: Array,
    sample_mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    hamming: str = "popcount",
) -> np.ndarray:
    """The weight of every query feature, log(n / df) / log(n).

    n is the number of images in the sample; df is the number of those that get a positive vote
    from the feature, at least 1.

    Args:
      queries: descriptors [Q, Kq, ...] in an encoding of `descriptor_similarity.cosines`.
      query_mask: bool [Q, Kq], False on padding.
      sample: [n, K, ...], images of the database, of the same kind; array or rows on disk.
      sample_mask: bool [n, K].
      kernel: of the similarity.
      block: images compared at a time.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.

    Returns:
      float32 [Q, Kq], 1 for a feature of at most one image of the sample, 0 for a feature of all;
      1 for all features if the sample has fewer than two images.
    """
    count = len(sample)
    shape = query_mask.shape
    if count < 2:
        return np.ones(shape, np.float32)
    queries, query_mask = jnp.asarray(queries), jnp.asarray(query_mask)
    frequency = np.zeros(shape, np.int64)
    for _, (rows, present) in read_ahead((sample, sample_mask), min(block, count)):
        frequency += np.asarray(_frequency(queries, query_mask, rows, present, kernel, hamming))
    return (np.log(count / np.maximum(frequency, 1)) / np.log(count)).astype(np.float32)


@partial(jax.jit, static_argnames=("kernel", "hamming"))
def _frequency(
    queries: jax.Array,
    query_mask: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
    hamming: str,
) -> jax.Array:
    """Number of images of one block, int32 [Q, Kq], that contain each query feature."""

    def one_query(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (votes(*query, database, mask, kernel, hamming) > 0).sum(axis=1)

    return jax.lax.map(one_query, (queries, query_mask))
