"""Metric multidimensional scaling by majorisation, with a weight for each pair."""

from functools import partial

import jax
import jax.numpy as jnp

_HIGHEST = jax.lax.Precision.HIGHEST
_ROUNDING = 1e-5  # squared distance of equal points, relative to their squared norms


@partial(jax.jit, static_argnames="iterations")
def smacof(
    distances: jax.Array, weights: jax.Array, points: jax.Array, iterations: int
) -> jax.Array:
    """Moves points towards given distances; the stress never grows (de Leeuw, 1977).

    Each iteration is a Guttman transform X <- V^+ B(X) X, with V and B of Borg and Groenen,
    "Modern Multidimensional Scaling", section 8.6. Points that coincide stay together:
    otherwise rounding alone would decide how they separate.

    Args:
      distances: float [n, n], symmetric.
      weights: float [n, n], symmetric, at least 0; they must connect all points, except those whose
        weights are all 0, which move to the origin.
      points: float [n, d], the start, for example the result of classical MDS.
      iterations: number of transforms.

    Returns:
      float32 [n, d], centred.
    """
    count = len(distances)
    weights = jnp.where(jnp.eye(count, dtype=bool), 0.0, weights)
    degree = weights.sum(axis=1)
    used = (degree > 0.0).astype(jnp.float32)
    # V is singular along the ones; there, and on points without weight, it is made the identity
    ones = used[:, None] * used[None, :] * (degree.mean() / count)
    full = jnp.diag(degree + (1.0 - used)) - weights + ones
    # Depends on the points, so that it starts after their `eigh`: on a CPU, jaxlib's batched LAPACK
    # calls wait for threads of the pool that they run in, and the two could deadlock
    full = full + 0.0 * points[:1, :1]
    # Inverted once: a matrix product per iteration is far faster than two triangular solves
    factor = jax.scipy.linalg.cho_factor(full)
    inverse = jax.scipy.linalg.cho_solve(factor, jnp.eye(count))

    def transform(_: int, points: jax.Array) -> jax.Array:
        between = _pairwise(points)
        ratio = weights * distances / jnp.where(between > 0.0, between, jnp.inf)
        pulled = ratio.sum(axis=1)[:, None] * points
        pulled -= jnp.matmul(ratio, points, precision=_HIGHEST)
        return jnp.matmul(inverse, pulled, precision=_HIGHEST)

    points = points * used[:, None]
    return jax.lax.fori_loop(0, iterations, transform, points)


def _pairwise(points: jax.Array) -> jax.Array:
    """Euclidean distances [n, n], from norms and inner products, so that memory is [n, n]."""
    squares = (points**2).sum(axis=1)
    products = jnp.matmul(points, points.T, precision=_HIGHEST)
    both = squares[:, None] + squares[None, :]
    apart = both - 2.0 * products
    return jnp.sqrt(jnp.where(apart > _ROUNDING * both, apart, 0.0))
