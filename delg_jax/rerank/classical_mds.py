"""Classical multidimensional scaling: points whose Euclidean distances are as given."""

from functools import partial

import jax
import jax.numpy as jnp

from delg_jax.rerank import eigensolver

_HIGHEST = jax.lax.Precision.HIGHEST


@partial(jax.jit, static_argnames=("dim", "solver"))
def classical_mds(
    distances: jax.Array, dim: int, mask: jax.Array | None = None, solver: str = "eigh"
) -> jax.Array:
    """Points whose Euclidean distances are as given (Torgerson, 1952).

    B = -1/2 J D^2 J with J = I - 1 1^T / n, and X = V sqrt(Lambda) over the largest positive
    eigenvalues. The largest coordinate of each column is positive, which fixes its sign. Of equal
    eigenvalues all are used or none: which of their vectors come first is arbitrary.

    Args:
      distances: float [n, n], symmetric.
      dim: columns wanted, at most; those without a positive eigenvalue are zero.
      mask: bool [n], False on rows that are not points; they get zeros.
      solver: one of `eigenpairs.SOLVERS`.

    Returns:
      float32 [n, dim].
    """
    weight = _weight(distances, mask)
    values, vectors = _positive_pairs(distances, weight, dim, solver)
    points = _with_fixed_signs(vectors * jnp.sqrt(values)[None, :]) * weight[:, None]
    return jnp.pad(points, ((0, 0), (0, dim - points.shape[1])))


@partial(jax.jit, static_argnames=("dim", "solver"))
def landmark_mds(
    distances: jax.Array, dim: int, mask: jax.Array | None = None, solver: str = "eigh"
) -> jax.Array:
    """Points from their distances to a few landmarks (de Silva and Tenenbaum, 2004).

    The landmarks are embedded by classical MDS, and each point is placed by its distances to
    them: Nystroem's extension of their eigenvectors. Decomposes [L, L] instead of [n, n].

    Args:
      distances: float [L, n], of the landmarks to all points; the first L points are the
        landmarks.
      dim: columns wanted, at most; those without a positive eigenvalue are zero.
      mask: bool [n], False on rows that are not points; they get zeros.
      solver: one of `eigenpairs.SOLVERS`.

    Returns:
      float32 [n, dim].
    """
    landmarks = len(distances)
    present = jnp.ones(distances.shape[1]) if mask is None else mask.astype(jnp.float32)
    weight = present[:landmarks]
    squares = distances**2
    values, vectors = _positive_pairs(distances[:, :landmarks], weight, dim, solver)
    # Vectors sum to 0 over the landmarks, so constants of a point need not be subtracted
    mean = (squares[:, :landmarks] * weight[None, :]).sum(axis=1) / jnp.maximum(weight.sum(), 1.0)
    roots = jnp.where(values > 0.0, jax.lax.rsqrt(jnp.where(values > 0.0, values, 1.0)), 0.0)
    centred = (mean[:, None] - squares) * weight[:, None]
    points = 0.5 * jnp.matmul(centred.T, vectors * roots[None, :], precision=_HIGHEST)
    points = _with_fixed_signs(points * present[:, None])
    return jnp.pad(points, ((0, 0), (0, dim - points.shape[1])))


def _weight(distances: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.ones(len(distances)) if mask is None else mask.astype(jnp.float32)


def _positive_pairs(
    distances: jax.Array, weight: jax.Array, dim: int, solver: str
) -> tuple[jax.Array, jax.Array]:
    """The leading pairs of B; values not clearly above 0, and above those left out, are 0."""
    count = len(distances)
    total = jnp.maximum(weight.sum(), 1.0)
    squares = distances**2 * (weight[:, None] * weight[None, :])
    # J D^2 J by the means of rows and columns, without products of whole matrices
    rows, columns = squares.sum(axis=1) / total, squares.sum(axis=0) / total
    gram = squares - rows[:, None] - columns[None, :] + rows.sum() / total
    gram *= weight[:, None] * weight[None, :]
    # One more than wanted: vectors of equal values span a space without a basis of its own, of
    # which a part would be arbitrary, and rankings with it
    values, vectors = eigensolver.leading(-0.5 * gram, dim + 1, solver)
    left_out = values[dim] if len(values) > dim else 0.0
    rounding = count * jnp.finfo(jnp.float32).eps * jnp.maximum(values[0], 0.0)
    values, vectors = values[:dim], vectors[:, :dim]
    clear = values > jnp.maximum(left_out, 0.0) + rounding
    return jnp.where(clear, values, 0.0), vectors


def _with_fixed_signs(points: jax.Array) -> jax.Array:
    largest = jnp.argmax(jnp.abs(points), axis=0)[None, :]
    return points * jnp.where(jnp.take_along_axis(points, largest, axis=0) < 0.0, -1.0, 1.0)
