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
    similarities, indices = _no_lists(len(queries), top_k)
    done = 0
    for start, (part,) in read_ahead((rows,), block, firsts):
        exists = None if present is None else present[start : start + len(part)]
        similarities, indices = _merge(similarities, indices, queries, part, exists, start, done)
        done = start + len(part)
    return _without_absent(similarities), np.asarray(indices)


class StreamedSearch:
    """`search` of a database that comes part by part, each read once.

    Args:
      queries: float [Q, D].
      top_k: images kept per query.
      block: images compared at a time.
    """

    def __init__(self, queries: np.ndarray, top_k: int, block: int = 65_536) -> None:
        if top_k <= 0 or block <= 0:
            raise ValueError(f"`top_k` (={top_k}) and `block` (={block}) must be positive")
        self._queries, self._block = jnp.asarray(queries, jnp.float32), block
        self._similarities, self._indices = _no_lists(len(queries), top_k)
        self.count = 0

    def add(self, rows: np.ndarray, present: np.ndarray | None = None) -> None:
        """Compares the next images.

        Args:
          rows: float [n, D]; they are numbered on from `count`.
          present: bool [n], False for images that no list may hold; None = all may be held.
        """
        block, firsts = even_blocks(len(rows), self._block)
        done = 0
        for first in firsts:
            part, exists = rows[first : first + block], None
            if present is not None:
                exists = present[first : first + block]
            start, known = self.count + first, self.count + done
            self._similarities, self._indices = _merge(
                self._similarities, self._indices, self._queries, part, exists, start, known
            )
            done = first + len(part)
        self.count += len(rows)

    def lists(self) -> tuple[np.ndarray, np.ndarray]:
        """Similarities float32 [Q, top_k], best first, and indices int32 [Q, top_k].

        Where there are fewer images, similarities are minus infinity and indices are -1.
        """
        similarities = _without_absent(self._similarities)
        return similarities, np.where(similarities == -np.inf, -1, np.asarray(self._indices))

    def restore(self, similarities: np.ndarray, indices: np.ndarray, count: int) -> None:
        """Resumes from `lists` of the first `count` images."""
        self._similarities = jnp.asarray(similarities, jnp.float32)
        self._indices, self.count = jnp.asarray(indices, jnp.int32), count


def _no_lists(queries: int, top_k: int) -> tuple[Array, Array]:
    """Lists [Q, top_k] of no images, of the types of merged ones: `_merge` is compiled once."""
    shape = queries, top_k
    return np.full(shape, -np.inf, np.float32), np.full(shape, -1, np.int32)


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
