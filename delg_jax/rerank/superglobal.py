"""SuperGlobal: re-ranking by global descriptors, each refined by its neighbours.

Shao et al., "Global Features are All You Need for Image Retrieval and Reranking", ICCV 2023.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import require_least
from delg_jax.search.batching import starts

Array = jax.Array | np.ndarray

POOLINGS = ("maximum", "mean")

_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class SuperGlobalSettings:
    """The settings of SuperGlobal; `config.rerank.superglobal` has the same names.

    Attributes:
      short_list: images to re-rank, M.
      neighbours: that refine a descriptor.
      beta: weight of a neighbour; the descriptor itself has 1.
    """

    short_list: int = 400
    neighbours: int = 9
    beta: float = 0.15

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "short_list", "neighbours")
        require_least(self, 0, "beta")


def rerank(
    queries: Array,
    database: Array,
    ranks: Array,
    top_m: int = 400,
    k: int = 9,
    beta: float = 0.15,
    query_block: int = 16,
) -> np.ndarray:
    """Re-ranks the first `top_m` images of each query; later images keep their order.

    Memory holds the descriptors and similarities of `query_block` short lists.

    Args:
      queries: float [Q, D], unit norm.
      database: float [N, D], unit norm; an array or a memory map.
      ranks: int [Q, N], images, best first.
      top_m: images re-ranked; more than N means N.
      k: neighbours that refine a descriptor; more than there are means all.
      beta: weight of a neighbour; the descriptor itself has 1.
      query_block: queries computed at a time.

    Returns:
      The new ranking, int [Q, N]; equal scores keep their order.

    Raises:
      ValueError: if `top_m`, `k` or `query_block` is not positive.
    """
    for name, value in (("top_m", top_m), ("k", k), ("query_block", query_block)):
        if value < 1:
            raise ValueError(f"`{name}` (={value}) must be at least 1")
    result = np.array(ranks)
    heads = result[:, :top_m].copy()
    query_block = min(query_block, max(len(heads), 1))
    for start in starts(len(heads), query_block):
        # The last block is padded with its last query, so that one shape is compiled
        rows = np.minimum(np.arange(start, start + query_block), len(heads) - 1)
        descriptors = np.asarray(database[heads[rows]], np.float32)
        order = _orders(np.asarray(queries[rows], np.float32), descriptors, k, beta)
        result[rows, :top_m] = np.take_along_axis(heads[rows], np.asarray(order), axis=1)
    return result


@partial(jax.jit, static_argnames="k")
def _orders(queries: jax.Array, descriptors: jax.Array, k: int, beta: float) -> jax.Array:
    """Positions [Q, M] of the images, best first."""
    found = jax.vmap(lambda one, images: scores(one, images, k, beta))(queries, descriptors)
    return jnp.argsort(-found, axis=1, stable=True)


@partial(jax.jit, static_argnames=("k", "pooling"))
def scores(
    query: jax.Array,
    descriptors: jax.Array,
    k: int,
    beta: float,
    mask: jax.Array | None = None,
    pooling: str = "maximum",
) -> jax.Array:
    """Scores of one short list.

    The mean of <q, x'> and <q', x'>, where x' are the refined descriptors and q' pools the k + 1 of
    them with the largest <q, x'>.

    Args:
      query: float [D], q.
      descriptors: float [M, D].
      k: neighbours that refine a descriptor.
      beta: weight of a neighbour.
      mask: bool [M], False on rows without an image; None for all True.
      pooling: `maximum`, elementwise, as published, for descriptors of a network; or `mean`, with
        unit norm, for embeddings: it rotates with the vectors, which are defined up to a rotation.

    Returns:
      float32 [M], minus infinity outside the mask.

    Raises:
      ValueError: for an unknown pooling.
    """
    if pooling not in POOLINGS:
        raise ValueError(f"`pooling` (={pooling!r}) must be one of {', '.join(POOLINGS)}")
    present = jnp.ones(len(descriptors), bool) if mask is None else mask
    refined = refine(descriptors, k, beta, present)
    first = jnp.matmul(refined, query, precision=_HIGHEST)
    first = jnp.where(present, first, -jnp.inf)
    best = jax.lax.top_k(first, min(k + 1, len(descriptors)))[1]
    expanded = _pooled(refined[best], present[best], pooling)
    second = jnp.matmul(refined, expanded, precision=_HIGHEST)
    return jnp.where(present, 0.5 * (first + second), -jnp.inf)


def _pooled(vectors: jax.Array, present: jax.Array, pooling: str) -> jax.Array:
    """Pools the vectors [k + 1, D] that are present to one [D]; zeros for none."""
    if pooling == "mean":
        total = jnp.where(present[:, None], vectors, 0.0).sum(axis=0)
        norm = jnp.linalg.norm(total)
        return total / jnp.where(norm > 0.0, norm, 1.0)
    largest = jnp.where(present[:, None], vectors, -jnp.inf).max(axis=0)
    return jnp.where(jnp.isfinite(largest), largest, 0.0)


@partial(jax.jit, static_argnames="k")
def refine(descriptors: jax.Array, k: int, beta: float, mask: jax.Array | None = None) -> jax.Array:
    """Averages descriptors with their neighbours, (x_i + sum_j b s_ij x_j) / (1 + sum_j b s_ij).

    The neighbours j are the k most similar others and s_ij their inner products with x_i. The
    result is not normalised.

    Args:
      descriptors: float [M, D].
      k: neighbours; more than M - 1 means all.
      beta: b.
      mask: bool [M], False on rows without an image, which are no neighbours; None for all True.

    Returns:
      float32 [M, D].
    """
    count = len(descriptors)
    present = jnp.ones(count, bool) if mask is None else mask
    similarities = jnp.matmul(descriptors, descriptors.T, precision=_HIGHEST)
    others = present[None, :] & ~jnp.eye(count, dtype=bool)
    values, neighbours = jax.lax.top_k(jnp.where(others, similarities, -jnp.inf), min(k, count - 1))
    weights = beta * jnp.where(jnp.isfinite(values), values, 0.0)
    added = jnp.einsum("mk,mkd->md", weights, descriptors[neighbours], precision=_HIGHEST)
    total = 1.0 + weights.sum(axis=1)
    return (descriptors + added) / total[:, None]
