"""Multidimensional scaling of given distances: classical, and by majorisation with weights."""

from functools import partial

import jax
import jax.numpy as jnp

_HIGHEST = jax.lax.Precision.HIGHEST
_ROUNDING = 1e-5  # squared distance of equal points, relative to their squared norms


@partial(jax.jit, static_argnames="dim")
def classical_mds(distances: jax.Array, dim: int, mask: jax.Array | None = None) -> jax.Array:
    """Points whose Euclidean distances are as given (Torgerson, 1952).

    B = -1/2 J D^2 J with J = I - 1 1^T / n, and X = V sqrt(Lambda) over the largest positive
    eigenvalues. The sign of each column is fixed by making its largest coordinate positive. Equal
    eigenvalues are used together or not at all, because the basis of their vectors is arbitrary.

    Args:
      distances: float [n, n], symmetric.
      dim: columns of the result; those without a positive eigenvalue are zero.
      mask: bool [n], False on rows that are not points, whose result is zero; None for all True.

    Returns:
      float32 [n, dim].
    """
    weight = jnp.ones(len(distances)) if mask is None else mask.astype(jnp.float32)
    values, vectors = _positive_pairs(distances, weight, dim)
    points = _with_fixed_signs(vectors * jnp.sqrt(values)[None, :]) * weight[:, None]
    return jnp.pad(points, ((0, 0), (0, dim - points.shape[1])))


@partial(jax.jit, static_argnames="dim")
def landmark_mds(distances: jax.Array, dim: int, mask: jax.Array | None = None) -> jax.Array:
    """Points from their distances to a few landmarks (de Silva and Tenenbaum, 2004).

    Classical MDS embeds the landmarks, and each point is placed by its distances to them (Nystroem
    extension). Decomposes [L, L] instead of [n, n].

    Args:
      distances: float [L, n], of the landmarks to all points; the first L points are the
        landmarks.
      dim: columns of the result; those without a positive eigenvalue are zero.
      mask: bool [n], False on rows that are not points, whose result is zero; None for all True.

    Returns:
      float32 [n, dim].
    """
    landmarks = len(distances)
    present = jnp.ones(distances.shape[1]) if mask is None else mask.astype(jnp.float32)
    weight = present[:landmarks]
    squares = distances**2
    values, vectors = _positive_pairs(distances[:, :landmarks], weight, dim)
    # Vectors sum to 0 over the landmarks, so constants of a point need not be subtracted
    mean = (squares[:, :landmarks] * weight[None, :]).sum(axis=1) / jnp.maximum(weight.sum(), 1.0)
    roots = jnp.where(values > 0.0, jax.lax.rsqrt(jnp.where(values > 0.0, values, 1.0)), 0.0)
    centred = (mean[:, None] - squares) * weight[:, None]
    points = 0.5 * jnp.matmul(centred.T, vectors * roots[None, :], precision=_HIGHEST)
    points = _with_fixed_signs(points * present[:, None])
    return jnp.pad(points, ((0, 0), (0, dim - points.shape[1])))


def _positive_pairs(
    distances: jax.Array, weight: jax.Array, dim: int
) -> tuple[jax.Array, jax.Array]:
    """The largest eigenvalues of B and their vectors, descending; others count as 0.

    A value is set to 0 unless it is clearly above 0 and above the largest one left out.
    """
    count = len(distances)
    total = jnp.maximum(weight.sum(), 1.0)
    squares = distances**2 * (weight[:, None] * weight[None, :])
    # J D^2 J by the means of rows and columns, without matrix products
    rows, columns = squares.sum(axis=1) / total, squares.sum(axis=0) / total
    gram = squares - rows[:, None] - columns[None, :] + rows.sum() / total
    gram *= weight[:, None] * weight[None, :]
    values, vectors = jnp.linalg.eigh(-0.5 * gram)
    # One more than wanted: of the vectors of equal values, a part would be an arbitrary choice,
    # and so would rankings be
    values, vectors = values[::-1][: dim + 1], vectors[:, ::-1][:, : dim + 1]
    left_out = values[dim] if len(values) > dim else 0.0
    rounding = count * jnp.finfo(jnp.float32).eps * jnp.maximum(values[0], 0.0)
    values, vectors = values[:dim], vectors[:, :dim]
    clear = values > jnp.maximum(left_out, 0.0) + rounding
    return jnp.where(clear, values, 0.0), vectors


def _with_fixed_signs(points: jax.Array) -> jax.Array:
    """Columns whose largest coordinate is positive."""
    largest = jnp.argmax(jnp.abs(points), axis=0)[None, :]
    return points * jnp.where(jnp.take_along_axis(points, largest, axis=0) < 0.0, -1.0, 1.0)


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
