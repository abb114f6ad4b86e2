"""The leading eigenpairs of a symmetric matrix: all of them by `eigh`, or a few by iteration."""

from functools import partial

import jax
import jax.numpy as jnp

SOLVERS = ("eigh", "subspace")

_HIGHEST = jax.lax.Precision.HIGHEST
_POWER_STEPS = 40  # of the estimate of the least eigenvalue
_MARGIN = 1.1  # by which that estimate may be short


@partial(jax.jit, static_argnames=("count", "solver"))
def leading(matrix: jax.Array, count: int, solver: str = "eigh") -> tuple[jax.Array, jax.Array]:
    """The largest eigenvalues, in descending order, and their vectors.

    Args:
      matrix: float [n, n], symmetric.
      count: pairs wanted; at most n are returned.
      solver: eigh, a full decomposition; or subspace, see `subspace_iteration`, which is left to
        eigh where the pairs wanted are most of all.

    Returns:
      Values [min(count, n)] and vectors [n, min(count, n)].

    Raises:
      ValueError: for an unknown solver.
    """
    if solver not in SOLVERS:
        raise ValueError(f"`solver` (={solver!r}) must be one of {', '.join(SOLVERS)}")
    if solver == "subspace" and 2 * count < len(matrix):
        return subspace_iteration(matrix, count)
    values, vectors = jnp.linalg.eigh(matrix)
    return values[::-1][:count], vectors[:, ::-1][:, :count]


@partial(jax.jit, static_argnames=("count", "spare", "degree", "iterations"))
def subspace_iteration(
    matrix: jax.Array, count: int, spare: int = 32, degree: int = 10, iterations: int = 10
) -> tuple[jax.Array, jax.Array]:
    """Subspace iteration with Chebyshev filters (Zhou, Saad, Tiago, Chelikowsky, 2006).

    Each iteration applies a polynomial that is small between the least eigenvalue and the least
    of the pairs found so far, or 0 if that is larger, and grows fast above: negative eigenvalues,
    of which similarities that no points have give many, are damped however large they are. All
    work is in products of the matrix with [n, count + spare] blocks.

    Args:
      matrix: float [n, n], symmetric.
      count: pairs wanted, at most n.
      spare: further vectors that are iterated, for the last pairs to converge as well.
      degree: of the polynomials.
      iterations: number of them.

    Returns:
      Values [count], descending, and orthonormal vectors [n, count]. Eigenvalues below 0 are not
      refined: the last values may stand for them.
    """
    size = len(matrix)
    scale = jnp.abs(matrix).sum(axis=1).max()
    unit = matrix / jnp.where(scale > 0.0, scale, 1.0)
    block = jax.random.normal(jax.random.key(0), (size, min(count + spare, size)))
    least = _least_eigenvalue(unit, block[:, 0])

    def iterate(_: int, pairs: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        values, vectors = pairs
        return _ritz(unit, _filter(unit, vectors, least, jnp.maximum(values[-1], 0.0), degree))

    values, vectors = jax.lax.fori_loop(0, iterations, iterate, _ritz(unit, block))
    return scale * values[:count], vectors[:, :count]


def _ritz(matrix: jax.Array, block: jax.Array) -> tuple[jax.Array, jax.Array]:
    """The best approximate pairs within the span of `block`, in descending order."""
    basis = jnp.linalg.qr(block)[0]
    small = jnp.matmul(basis.T, _times(matrix, basis), precision=_HIGHEST)
    values, rotation = jnp.linalg.eigh(0.5 * (small + small.T))
    return values[::-1], jnp.matmul(basis, rotation[:, ::-1], precision=_HIGHEST)


def _filter(
    matrix: jax.Array, block: jax.Array, low: jax.Array, high: jax.Array, degree: int
) -> jax.Array:
    """A Chebyshev polynomial of the matrix times `block`, below 1 on [low, high].

    Scaled in each step to be 1 at the eigenvalue 1, the bound of all, so that it cannot overflow.
    """
    half = jnp.maximum(0.5 * (high - low), 1e-3)
    centre = high - half
    first = half / (1.0 - centre)
    before, now = block, (_times(matrix, block) - centre * block) * (first / half)

    def step(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        before, now, ratio = state
        following = 1.0 / (2.0 / first - ratio)
        after = 2.0 * following / half * (_times(matrix, now) - centre * now)
        return now, after - ratio * following * before, following

    return jax.lax.fori_loop(1, degree, step, (before, now, first))[1]


def _least_eigenvalue(matrix: jax.Array, start: jax.Array) -> jax.Array:
    """A bound from below, at most 0, of all eigenvalues in [-1, 1], by two power iterations."""

    def growth(apply: jax.Array) -> jax.Array:
        def step(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
            after = _times(apply, state[0])
            norm = jnp.linalg.norm(after)
            return after / jnp.where(norm > 0.0, norm, 1.0), norm

        unit = start / jnp.linalg.norm(start)
        return jax.lax.fori_loop(0, _POWER_STEPS, step, (unit, jnp.float32(0.0)))[1]

    radius = _MARGIN * growth(matrix)
    shifted = growth(radius * jnp.eye(len(matrix)) - matrix)
    return jnp.minimum(radius - _MARGIN * shifted, 0.0)


def _times(matrix: jax.Array, block: jax.Array) -> jax.Array:
    return jnp.matmul(matrix, block, precision=_HIGHEST)
