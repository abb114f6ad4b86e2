"""Exact nearest neighbours of global descriptors, block by block over the database."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search.batching import Rows, even_blocks, is_aligned, read_ahead

Array = jax.Array | np.ndarray

_COPIED = 1 << 24  # bytes of a block that must be copied: the allocator reuses memory of this size
_PRODUCTS = 64  # blocks of products of a query that a device holds
# Similarity of an absent image: below all others, but above the minus infinity of padding
_ABSENT = np.finfo(np.float32).min


def search(
    queries: Array,
    database: Rows,
    top_k: int,
    block: int = 65_536,
    present: np.ndarray | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """Finds the database images with the largest inner products with each query.

    Equal similarities are ordered by database index. Memory holds one block and the lists, so
    `database` may be a memory map larger than memory. On a CPU, rows aligned to 64 bytes are used
    in place, others are copied block by block. A database on an accelerator stays there.

    Args:
      queries: float [Q, D], unit norm for cosines.
      database: float [N, D] of any float type; computed in float32.
      top_k: images kept per query; more than N means all N, a whole ranking.
      block: database images compared at a time.
      present: bool [N], False for images without a descriptor: they come last, with a similarity
        of minus infinity; None if all have one.

    Returns:
      Similarities float32 [Q, top_k], best first, and indices int32 [Q, top_k].

    Raises:
      ValueError: if `top_k` or `block` is not positive, the dimensions differ, or `present` does
        not have shape [N].
    """
    if top_k <= 0:
        raise ValueError(f"`top_k` (={top_k}) must be positive")
    if queries.shape[-1] != database.shape[-1]:
        raise ValueError(
            f"`database` (D={database.shape[-1]}) must have the dimension of `queries` "
            f"(D={queries.shape[-1]})"
        )
    count = len(database)
    if present is not None:
        if np.shape(present) != (count,):
            raise ValueError(f"`present` (shape {np.shape(present)}) must have shape ({count},)")
        present = None if np.all(present) else np.asarray(present, bool)
    top_k = min(top_k, count)
    queries = jnp.asarray(queries, jnp.float32)
    if isinstance(database, jax.Array) and jax.default_backend() != "cpu":
        return _on_device(queries, database, top_k, block, present)
    rows = np.asarray(database) if isinstance(database, jax.Array) else database
    if isinstance(rows, np.ndarray) and rows.size and not is_aligned(rows):
        block = min(block, max(1, _COPIED // rows[0].nbytes))
    block, firsts = even_blocks(count, block)
    similarities = jnp.full((len(queries), top_k), -jnp.inf)
    indices = jnp.full((len(queries), top_k), -1, jnp.int32)
    done = 0
    for start, (part,) in read_ahead((rows,), block, firsts):
        exists = None if present is None else present[start : start + len(part)]
        similarities, indices = _merge(similarities, indices, queries, part, exists, start, done)
        done = start + len(part)
    return _without_absent(similarities), np.asarray(indices)


def _without_absent(similarities: jax.Array | np.ndarray) -> np.ndarray:
    """Replaces the similarity of absent images by minus infinity."""
    values = np.asarray(similarities)
    return np.where(values <= _ABSENT, -np.inf, values)


def _on_device(
    queries: jax.Array, database: jax.Array, top_k: int, block: int, present: np.ndarray | None
) -> tuple[np.ndarray, np.ndarray]:
    """`search` of a database on an accelerator: blocks of queries, and the database stays there."""
    query_block = max(1, _PRODUCTS * block // max(len(database), 1))
    parts = [
        _best(queries[start : start + query_block], database, present, top_k)
        for start in range(0, max(len(queries), 1), query_block)
    ]
    similarities, indices = (np.concatenate(side) for side in zip(*parts, strict=True))
    return _without_absent(similarities), indices


@partial(jax.jit, static_argnames="count")
def _best(
    queries: jax.Array, rows: jax.Array, present: jax.Array | None, count: int
) -> tuple[jax.Array, jax.Array]:
    return jax.lax.top_k(_products(queries, rows, present), count)


def _products(queries: jax.Array, rows: jax.Array, present: jax.Array | None) -> jax.Array:
    """Float32 [Q, N]; rows first, because a CPU multiplies a tall matrix by a small one faster."""
    found = jnp.matmul(rows.astype(jnp.float32), queries.T, precision=jax.lax.Precision.HIGHEST)
    return found.T if present is None else jnp.where(present[None, :], found.T, _ABSENT)


@jax.jit
def _merge(
    similarities: jax.Array,
    indices: jax.Array,
    queries: jax.Array,
    rows: jax.Array,
    present: jax.Array | None,
    start: jax.Array,
    done: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Merges one block into the best lists [Q, top_k]; rows before `done` are in them already.

    The lists come first and hold lower indices only; `top_k` keeps the order of equal values, so
    that ties go to the lower index.
    """
    columns = start + jnp.arange(rows.shape[0], dtype=jnp.int32)
    products = jnp.where((columns >= done)[None, :], _products(queries, rows, present), -jnp.inf)
    top_k = similarities.shape[1]
    best, position = jax.lax.top_k(products, min(top_k, rows.shape[0]))
    best = jnp.concatenate([similarities, best], axis=1)
    merged = jnp.concatenate([indices, start + position], axis=1)
    best, position = jax.lax.top_k(best, top_k)
    return best, jnp.take_along_axis(merged, position, axis=1)
