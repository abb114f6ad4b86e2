"""Transformations of the plane, fitted to a minimal sample or by least squares.

Coefficients lie on the first axis. Affine transformations and similarities have six, A_yy, A_yx,
A_xy, A_xx, b_y, b_x; homographies nine, the rows of their matrix for (y, x, 1).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

# Triangles with a height below this fraction of their longest side count as collinear.
FLATTEST_TRIANGLE = 1e-3

# Samples of two points nearer to each other than this, in pixels, are degenerate.
SHORTEST_SIDE = 1.0

# A linear map with a smaller determinant, relative to its squared norm, is rejected as degenerate.
FLATTEST = 1e-3

# Matches whose standard deviation is below this, in pixels, count as one point.
NARROWEST = 0.5


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of transformation.

    Attributes:
      sample: matches that determine one.
      through: from a sample float [sample, 4, M, H] to coefficients [C, M, H], and bool [M, H],
        False where the sample is degenerate.
      refit: from matches float [M, K, 4], near the origin, and weights float [M, T, K], at least 0,
        for T fits per pair, to coefficients [C, M, T] of the least squared error, and bool [M, T],
        False where it is degenerate.
    """

    sample: int
    through: Callable[[jax.Array], tuple[jax.Array, jax.Array]]
    refit: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]]

    @property
    def least_matches(self) -> int:
        """Fewest matches to verify: a sample alone always fits."""
        return self.sample + 1


def affine(sample: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Affine transformation through three matches, by Cramer's rule; see `Family.through`."""
    first, second, third = sample  # [4, M, H] each
    (u_y, u_x, p_y, p_x), (v_y, v_x, q_y, q_x) = second - first, third - first
    determinant = u_y * v_x - u_x * v_y
    possible = _spans(u_y, u_x, v_y, v_x) & _spans(p_y, p_x, q_y, q_x)
    scale = 1.0 / jnp.where(possible, determinant, 1.0)
    yy, yx = (p_y * v_x - q_y * u_x) * scale, (q_y * u_y - p_y * v_y) * scale
    xy, xx = (p_x * v_x - q_x * u_x) * scale, (q_x * u_y - p_x * v_y) * scale
    return at_match(first, yy, yx, xy, xx), possible


def similarity(sample: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotation, scale and shift through two matches; see `Family.through`."""
    first, second = sample
    u_y, u_x, p_y, p_x = second - first
    length = u_y**2 + u_x**2
    possible = (length > SHORTEST_SIDE**2) & (p_y**2 + p_x**2 > SHORTEST_SIDE**2)
    scale = 1.0 / jnp.where(possible, length, 1.0)
    cosine, sine = (p_y * u_y + p_x * u_x) * scale, (p_x * u_y - p_y * u_x) * scale
    return at_match(first, cosine, -sine, sine, cosine), possible


def homography(sample: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Homography through four matches; see `Family.through`.

    Written in the projective frame of the first three points: the sum over them of a weight times
    target_i (source_j x source_k)', where the fourth match sets the weights (Hartley, Zisserman,
    "Multiple View Geometry", section 2.4). A sample is degenerate if three points are collinear,
    or if only some of its triangles change orientation: a point would be behind the camera.
    """
    source, target = sample[:, :2], sample[:, 2:]
    possible = jnp.ones(sample.shape[2:], bool)
    flips, areas, weights = [], [], []
    for corners in ((0, 1, 2), (3, 1, 2), (0, 3, 2), (0, 1, 3)):
        area, spans = _triangle(source[corners, :])
        target_area, target_spans = _triangle(target[corners, :])
        possible &= spans & target_spans
        flips.append(area * target_area < 0)
        areas.append(area)
        weights.append(target_area / jnp.where(spans, area, 1.0))
    flipped = jnp.stack(flips)
    possible &= flipped.all(axis=0) | ~flipped.any(axis=0)
    depth = jnp.where(possible, weights[1] * areas[0], 1.0)  # of the first point; then it is 1
    terms = [
        (weights[i + 1] / depth)[None, None]
        * _homogeneous(target[i])[:, None]
        * _line(source[j], source[k])[None]
        for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1))
    ]
    return jnp.asarray(sum(terms)).reshape(9, *depth.shape), possible


def refit_affine(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Affine: cross-covariance times the inverse covariance of the source; see `Family.refit`."""
    spread, moved, source, target = _moments(points, weights)
    (s_yy, s_yx), (_, s_xx) = spread
    determinant = s_yy * s_xx - s_yx**2
    known = determinant > FLATTEST**2 * (s_yy + s_xx) ** 2
    scale = 1.0 / jnp.where(known, determinant, 1.0)
    rows = [
        ((y * s_xx - x * s_yx) * scale, (x * s_yy - y * s_yx) * scale) for y, x in moved
    ]  # of A
    return _shifted(rows, known, source, target)


def refit_similarity(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Rotation, scale and shift (Umeyama, TPAMI 1991, without reflections)."""
    spread, moved, source, target = _moments(points, weights)
    size = spread[0][0] + spread[1][1]
    known = size > NARROWEST**2 * jnp.maximum(weights.sum(axis=-1), 1e-6)
    scale = 1.0 / jnp.where(known, size, 1.0)
    cosine = (moved[0][0] + moved[1][1]) * scale
    sine = (moved[1][0] - moved[0][1]) * scale
    return _shifted([(cosine, -sine), (sine, cosine)], known, source, target)


def refit_homography(points: jax.Array, weights: jax.Array) -> tuple[jax.Array, jax.Array]:
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


FAMILIES = {
    "affine": Family(3, affine, refit_affine),
    "similarity": Family(2, similarity, refit_similarity),
    "homography": Family(4, homography, refit_homography),
}


def as_homography(affine: jax.Array) -> jax.Array:
    """The nine coefficients of the homography equal to an affine transformation [6, ...]."""
    yy, yx, xy, xx, b_y, b_x = affine
    zero = jnp.zeros_like(yy)
    return jnp.stack([yy, yx, b_y, xy, xx, b_x, zero, zero, zero + 1.0])


def matrix(model: jax.Array, source_centre: jax.Array, target_centre: jax.Array) -> jax.Array:
    """Matrices of transformations that were estimated between centred points.

    Args:
      model: [C, M], coefficients.
      source_centre: [M, 2], (y, x) that was subtracted from the source points.
      target_centre: [M, 2], likewise of the target points.

    Returns:
      float [M, 2, 3], [A | b], for six coefficients; [M, 3, 3] for nine, the last element 1.
    """
    if len(model) == 6:
        linear = jnp.moveaxis(model[:4], 0, 1).reshape(-1, 2, 2)
        offset = jnp.moveaxis(model[4:], 0, 1) + target_centre
        offset -= jnp.einsum("mij,mj->mi", linear, source_centre)
        return jnp.concatenate([linear, offset[:, :, None]], axis=2)
    centred = jnp.moveaxis(model, 0, 1).reshape(-1, 3, 3)
    last = centred[:, :, 2] - jnp.einsum("mij,mj->mi", centred[:, :, :2], source_centre)
    moved = jnp.concatenate([centred[:, :, :2], last[:, :, None]], axis=2)
    rows = moved[:, :2] + target_centre[:, :, None] * moved[:, 2:]
    whole = jnp.concatenate([rows, moved[:, 2:]], axis=1)
    corner = whole[:, 2:, 2:]
    return whole / jnp.where(corner == 0, 1.0, corner)


def at_match(
    match: jax.Array, yy: jax.Array, yx: jax.Array, xy: jax.Array, xx: jax.Array
) -> jax.Array:
    """Six coefficients of a linear part and the shift that fits a match [4, ...]."""
    y, x, target_y, target_x = match
    b_y, b_x = target_y - yy * y - yx * x, target_x - xy * y - xx * x
    return jnp.stack([yy, yx, xy, xx, b_y, b_x])


def _spans(u_y: jax.Array, u_x: jax.Array, v_y: jax.Array, v_x: jax.Array) -> jax.Array:
    """Whether the triangle with sides u and v from one corner is not flat."""
    longest = jnp.maximum(u_y**2 + u_x**2, v_y**2 + v_x**2)
    longest = jnp.maximum(longest, (u_y - v_y) ** 2 + (u_x - v_x) ** 2)
    return jnp.abs(u_y * v_x - u_x * v_y) > FLATTEST_TRIANGLE * longest


def _triangle(corners: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Twice the signed area of triangles [3, 2, ...], and whether they are not flat."""
    (u_y, u_x), (v_y, v_x) = corners[1:] - corners[:1]
    return u_y * v_x - u_x * v_y, _spans(u_y, u_x, v_y, v_x)


def _homogeneous(point: jax.Array) -> jax.Array:
    """Homogeneous coordinates of points [2, ...]."""
    return jnp.concatenate([point, jnp.ones_like(point[:1])])


def _line(a: jax.Array, b: jax.Array) -> jax.Array:
    """The line through two points [2, ...]: the cross product of their homogeneous coordinates."""
    return jnp.stack([a[1] - b[1], b[0] - a[0], a[0] * b[1] - a[1] * b[0]])


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
