"""Query expansion: a query averaged with the best images of its own ranking."""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import require_least

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class ExpansionSettings:
    """The settings of query expansion; `config.rerank.qe` has the same names.

    Attributes:
      images: best images of a query to average.
      alpha: exponent of their cosines, which are the weights.
    """

    images: int = 10
    alpha: float = 0.0

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "images")
        require_least(self, 0, "alpha")


def expand(
    queries: Array,
    database: Array,
    ranks: Array,
    images: int = 10,
    alpha: float = 0.0,
) -> np.ndarray:
    """New query descriptors for a second search of the database.

    A new descriptor is the normalised sum of the query, with weight 1, and its best images, each
    with its cosine to the power `alpha` as weight. With alpha = 0 this is average query expansion
    (Chum et al., "Total Recall", ICCV 2007), else alpha query expansion (Radenovic, Tolias, Chum,
    TPAMI 2019; there alpha = 3).

    Args:
      queries: float [Q, D], unit norm.
      database: float [N, D], unit norm; only the rows needed are read of a memory map.
      ranks: int [Q, N], images, best first.
      images: best images of a query to average; 0 = none, more than N = all.
      alpha: exponent; unless it is 0, images of a negative cosine have weight 0.

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
    return np.asarray(_expand(np.asarray(queries, np.float32), best, alpha))


@partial(jax.jit, static_argnames="alpha")
def _expand(queries: jax.Array, best: jax.Array, alpha: float) -> jax.Array:
    highest = jax.lax.Precision.HIGHEST
    weights = jnp.ones(best.shape[:2])
    if alpha:
        cosines = jnp.einsum("qd,qkd->qk", queries, best, precision=highest)
        weights = jnp.maximum(cosines, 0.0) ** alpha
    total = queries + jnp.einsum("qk,qkd->qd", weights, best, precision=highest)
    norms = jnp.linalg.norm(total, axis=1, keepdims=True)
    return total / jnp.where(norms > 0.0, norms, 1.0)
