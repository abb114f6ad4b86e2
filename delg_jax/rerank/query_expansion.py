"""Query expansion: a query averaged with the best images of its own ranking."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray


def expand(
    queries: Array,
    database: Array,
    ranks: Array,
    images: int = 10,
    alpha: float = 0.0,
    mask: Array | None = None,
) -> np.ndarray:
    """New query descriptors, to search the database with once more.

    The descriptors of the best images count by their cosine to the power `alpha`, the query by 1.
    With alpha = 0 this is average query expansion (Chum et al., "Total Recall", ICCV 2007), else
    alpha query expansion (Radenovic, Tolias, Chum, TPAMI 2019; there alpha = 3).

    Args:
      queries: float [Q, D], unit norm.
      database: float [N, D], unit norm; only the rows needed are read of a memory map.
      ranks: int [Q, N], images, best first.
      images: best images of a query that take part; 0 = none, more than N = all.
      alpha: exponent; images of a negative cosine count nothing unless it is 0.
      mask: bool [Q, N] in the order of `ranks`, False on images that are to be left out, for
        example those that were not verified spatially; None for all True.

    Returns:
      float32 [Q, D], unit norm.

    Raises:
      ValueError: if `images` or `alpha` is negative.
    """
    for name, value in (("images", images), ("alpha", alpha)):
        if value < 0:
            raise ValueError(f"`{name}` (={value}) must not be negative")
    heads = np.asarray(ranks)[:, :images]
    best = np.asarray(database[heads], np.float32)
    used = np.ones(heads.shape, bool) if mask is None else np.asarray(mask)[:, :images]
    return np.asarray(_expand(np.asarray(queries, np.float32), best, used, alpha))


@partial(jax.jit, static_argnames="alpha")
def _expand(queries: jax.Array, best: jax.Array, used: jax.Array, alpha: float) -> jax.Array:
    highest = jax.lax.Precision.HIGHEST
    weights = jnp.ones(best.shape[:2])
    if alpha:
        cosines = jnp.einsum("qd,qkd->qk", queries, best, precision=highest)
        weights = jnp.maximum(cosines, 0.0) ** alpha
    weights = jnp.where(used, weights, 0.0)
    total = queries + jnp.einsum("qk,qkd->qd", weights, best, precision=highest)
    norms = jnp.linalg.norm(total, axis=1, keepdims=True)
    return total / jnp.where(norms > 0.0, norms, 1.0)
