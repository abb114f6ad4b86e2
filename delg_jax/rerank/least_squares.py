"""Least-squares transformations of weighted matches.

Each takes matches float [M, K, 4], source (y, x) and target (y, x), near the origin, and weights
float [M, T, K], at least 0, for T fits per pair. Each returns coefficients [C, M, T] in the order
of `transforms`, and bool [M, T], False where the matches do not determine a transformation.
"""

import jax
import jax.numpy as jnp

# A linear map with a smaller determinant, relative to its squared norm, is rejected as degenerate.
FLATTEST = 1e-3

# Matches whose standard deviation is below this, in pixels, count as one point.
NARROWEST = 0.5


def affine(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Affine transformations: cross-covariance times the inverse covariance of the source."""
    spread, moved, source, target = _moments(points, weights)
    (s_yy, s_yx), (_, s_xx) = spread
    determinant = s_yy * s_xx - s_yx**2
    known = determinant > FLATTEST**2 * (s_yy + s_xx) ** 2
    scale = 1.0 / jnp.where(known, determinant, 1.0)
    rows = [
        ((y * s_xx - x * s_yx) * scale, (x * s_yy - y * s_yx) * scale) for y, x in moved
    ]  # of A
    return _shifted(rows, known, source, target)


def similarity(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotation, scale and shift (Umeyama, TPAMI 1991, without reflections)."""
    spread, moved, source, target = _moments(points, weights)
    size = spread[0][0] + spread[1][1]
    known = size > NARROWEST**2 * jnp.maximum(weights.sum(axis=-1), 1e-6)
    scale = 1.0 / jnp.where(known, size, 1.0)
    cosine = (moved[0][0] + moved[1][1]) * scale
    sine = (moved[1][0] - moved[0][1]) * scale
    return _shifted([(cosine, -sine), (sine, cosine)], known, source, target)


def homography(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Homographies by the direct linear transformation (Hartley, TPAMI 1997).

    Points are centred and scaled to unit variance first. In those coordinates the last element of
    the matrix is set to 1, which is possible if both cameras see the mean of the matches.
    """
    source, source_middle, source_size = _normalized(points[:, :, :2], weights)
    target, target_middle, target_size = _normalized(points[:, :, 2:], weights)
    design, wanted = _linear_equations(source, target)
    normal = jnp.einsum("mtk,cmtkp,cmtkq->mtpq", weights, design, design, precision="highest")
    right = jnp.einsum("mtk,cmtkp,cmtk->mtp", weights, design, wanted, precision="highest")
    solution = jnp.linalg.solve(normal, right[..., None])[..., 0]
    known = jnp.isfinite(solution).all(axis=-1) & (weights.sum(axis=-1) >= 4)
    solution = jnp.where(known[..., None], solution, 0.0)
    yy, yx, b_y, xy, xx, b_x, wy, wx = jnp.moveaxis(solution, -1, 0)
    good = known & _keeps_plane(yy - b_y * wy, yx - b_y * wx, xy - b_x * wy, xx - b_x * wx)
    rows = jnp.stack([jnp.stack([yy, yx, b_y]), jnp.stack([xy, xx, b_x])])
    depth = jnp.stack([wy, wx, jnp.ones_like(wy)])
    rows = rows * target_size[None, None] + target_middle[:, None] * depth[None]
    whole = jnp.concatenate([rows, depth[None]])  # [3, 3, M, T]
    linear = whole[:, :2] / source_size[None, None]
    last = whole[:, 2] - (linear * source_middle[None]).sum(axis=1)
    return jnp.concatenate([linear, last[:, None]], axis=1).reshape(9, *good.shape), good


def _moments(points: jax.Array, weights: jax.Array):
    """Covariance of the source, cross-covariance [target][source], and both means [2]."""
    total = jnp.maximum(weights.sum(axis=-1), 1e-6)
    means = jnp.einsum("mtk,mkc->cmt", weights, points, precision="highest") / total[None]
    offsets = jnp.moveaxis(points, 2, 0)[:, :, None, :] - means[..., None]  # [4, M, T, K]

    def product(a: int, b: int) -> jax.Array:
        return (weights * offsets[a] * offsets[b]).sum(axis=-1)

    s_yx = product(0, 1)
    spread = (product(0, 0), s_yx), (s_yx, product(1, 1))
    moved = (product(2, 0), product(2, 1)), (product(3, 0), product(3, 1))
    return spread, moved, means[:2], means[2:]


def _shifted(
    rows: list[tuple[jax.Array, jax.Array]],
    known: jax.Array,
    source: jax.Array,
    target: jax.Array,
) -> tuple[jax.Array, jax.Array]:
    """Coefficients of a linear part and the shift that maps mean to mean."""
    (yy, yx), (xy, xx) = rows
    b_y = target[0] - yy * source[0] - yx * source[1]
    b_x = target[1] - xy * source[0] - xx * source[1]
    return jnp.stack([yy, yx, xy, xx, b_y, b_x]), known & _keeps_plane(yy, yx, xy, xx)


def _keeps_plane(yy: jax.Array, yx: jax.Array, xy: jax.Array, xx: jax.Array) -> jax.Array:
    """Whether a linear map does not flatten the plane to a line."""
    return jnp.abs(yy * xx - yx * xy) > FLATTEST * (yy**2 + yx**2 + xy**2 + xx**2)


def _normalized(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Normalised points [2, M, T, K], their mean [2, M, T] and their scale [M, T]."""
    total = jnp.maximum(weights.sum(axis=-1), 1e-6)
    middle = jnp.einsum("mtk,mkc->cmt", weights, points, precision="highest") / total[None]
    offsets = jnp.moveaxis(points, 2, 0)[:, :, None, :] - middle[..., None]
    variance = (weights[None] * offsets**2).sum(axis=(0, -1)) / total
    size = jnp.sqrt(jnp.where(variance > 0, variance, 1.0))
    return offsets / size[None, :, :, None], middle, size


def _linear_equations(source: jax.Array, target: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rows [2, M, T, K, 8] and right sides [2, M, T, K] of the direct linear transformation."""
    y, x = source
    one, zero = jnp.ones_like(y), jnp.zeros_like(y)
    design = [
        jnp.stack([y, x, one, zero, zero, zero, -target[0] * y, -target[0] * x], axis=-1),
        jnp.stack([zero, zero, zero, y, x, one, -target[1] * y, -target[1] * x], axis=-1),
    ]
    return jnp.stack(design), target
