"""Exact local search: the similarity of images as sets of local descriptors."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search.blocks import read_ahead
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray


def similarity(
    queries: Array,
    query_mask: Array,
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    weights: Array | None = None,
) -> np.ndarray:
    """Asymmetric Chamfer similarity of every query to every database image.

    s(q, x) is the mean over the features f of q of k(max over the features g of x of <f, g>);
    the quantity that constrained approximate nearest neighbours estimate (Aiger, Araujo, Lynen,
    ICCV 2023), computed exactly. An image or a query without features gives 0.

    Memory holds the products of one query with one block, never more.

    Args:
      queries: float [Q, Kq, D], unit norm.
      query_mask: bool [Q, Kq], False on padding.
      database: float32 or float16 [N, K, D], array or memory map; computed in float32.
      mask: bool [N, K].
      kernel: k.
      block: database images in a block of similarities.
      weights: float [Q, Kq], factors of the votes of query features, see `rarity`; None for 1.

    Returns:
      Similarities float32 [Q, N].

    Raises:
      ValueError: if the dimensions differ or `block` is not positive.
    """
    if queries.shape[-1] != database.shape[-1]:
        raise ValueError(
            f"`database` (D={database.shape[-1]}) must have the dimension of `queries` "
            f"(D={queries.shape[-1]})"
        )
    count = len(database)
    block = min(block, max(count, 1))
    queries = jnp.asarray(queries, jnp.float32)
    query_mask = jnp.asarray(query_mask)
    if weights is None:
        weights = np.ones(query_mask.shape, np.float32)
    weights = jnp.asarray(weights, jnp.float32)
    columns = [
        _block_similarity(queries, query_mask, weights, rows, present, kernel)
        for _, (rows, present) in read_ahead((database, mask), block)
    ]
    if not columns:
        return np.zeros((len(queries), 0), np.float32)
    return np.concatenate(columns, axis=1)[:, :count]


@partial(jax.jit, static_argnames="kernel")
def _block_similarity(
    queries: jax.Array,
    query_mask: jax.Array,
    weights: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
) -> jax.Array:
    """Similarities [Q, N] of one block, one query at a time."""

    def one_query(query: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        descriptors, valid, weight = query
        found = votes(descriptors, valid, database, mask, kernel) * weight[:, None]
        return found.sum(axis=0) / jnp.maximum(valid.sum(), 1)

    return jax.lax.map(one_query, (queries, query_mask, weights))


def votes(
    descriptors: jax.Array,
    valid: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
) -> jax.Array:
    """What the features of one query say about the images of one block.

    One large product keeps the matrix units busy; the masked maximum is fused with its reading, so
    the products are written and read once while they are in the cache.

    Args:
      descriptors: float32 [Kq, D], unit norm.
      valid: bool [Kq], False on padding.
      database: float [N, K, D].
      mask: bool [N, K].
      kernel: k.

    Returns:
      float32 [Kq, N], k of the best cosine; 0 on padding and for images without features.
    """
    images, features, dimension = database.shape
    flat = database.reshape(images * features, dimension).astype(jnp.float32)
    cosines = jnp.matmul(descriptors, flat.T, precision=jax.lax.Precision.HIGHEST)
    cosines = cosines.reshape(-1, images, features)
    best = jnp.where(mask[None], cosines, -jnp.inf).max(axis=2)
    found = jnp.where(jnp.isfinite(best), kernel(best), 0.0)
    return jnp.where(valid[:, None], found, 0.0)
