"""Exact nearest neighbours of global descriptors, in blocks over the database."""

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search.blocks import read_ahead

Array = jax.Array | np.ndarray


def search(
    queries: Array, database: Array, top_k: int, block: int = 65_536
) -> tuple[np.ndarray, np.ndarray]:
    """Ranks the database by inner product with each query and keeps the best.

    Equal similarities are ordered by database index. Memory is bounded by one block and the
    lists kept, so `database` may be a memory map larger than memory.

    Args:
      queries: float [Q, D], unit norm for cosines.
      database: float [N, D] of any float type; computed in float32.
      top_k: images kept per query; more than N means all N, a whole ranking.
      block: database images in a block of similarities.

    Returns:
      Similarities float32 [Q, top_k], best first, and indices int32 [Q, top_k].

    Raises:
      ValueError: if `top_k` or `block` is not positive, or the dimensions differ.
    """
    if top_k <= 0:
        raise ValueError(f"`top_k` (={top_k}) must be positive")
    if queries.shape[-1] != database.shape[-1]:
        raise ValueError(
            f"`database` (D={database.shape[-1]}) must have the dimension of `queries` "
            f"(D={queries.shape[-1]})"
        )
    count = len(database)
    top_k = min(top_k, count)
    block = min(block, max(count, 1))
    queries = jnp.asarray(queries, jnp.float32)
    similarities = jnp.full((len(queries), top_k), -jnp.inf)
    indices = jnp.full((len(queries), top_k), -1, jnp.int32)
    for start, (rows,) in read_ahead((database,), block):
        similarities, indices = _merge(similarities, indices, queries, rows, start, count)
    return np.asarray(similarities), np.asarray(indices)


@jax.jit
def _merge(
    similarities: jax.Array,
    indices: jax.Array,
    queries: jax.Array,
    rows: jax.Array,
    start: jax.Array,
    count: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Merges one block into the best lists [Q, top_k].

    The lists stand before the block, and every index in them is lower: as `top_k` puts the
    first of equals first, so does the merge.
    """
    products = jnp.matmul(queries, rows.astype(jnp.float32).T, precision=jax.lax.Precision.HIGHEST)
    columns = start + jnp.arange(rows.shape[0], dtype=jnp.int32)
    products = jnp.where((columns < count)[None, :], products, -jnp.inf)
    columns = jnp.broadcast_to(columns[None, :], products.shape)
    best, position = jax.lax.top_k(
        jnp.concatenate([similarities, products], axis=1), similarities.shape[1]
    )
    merged = jnp.concatenate([indices, columns], axis=1)
    return best, jnp.take_along_axis(merged, position, axis=1)
