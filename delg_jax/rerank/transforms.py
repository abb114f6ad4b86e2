"""Transformations of the plane, fitted to a minimal sample or by least squares.

Coefficients lie on the first axis. Affine transformations and similarities have six, A_yy, A_yx,
A_xy, A_xx, b_y, b_x; homographies nine, the rows of their matrix for (y, x, 1).
"""

import dataclasses
from collections.abc import Callable

import jax
import jax.numpy as jnp

from delg_jax.rerank import least_squares

# Triangles with a height below this fraction of their longest side count as collinear.
FLATTEST_TRIANGLE = 1e-3

# Samples of two points nearer to each other than this, in pixels, are degenerate.
SHORTEST_SIDE = 1.0


@dataclasses.dataclass(frozen=True)
class Family:
    """A kind of transformation.

    Attributes:
      sample: matches that determine one.
      through: from a sample float [sample, 4, M, H] to coefficients [C, M, H], and bool [M, H],
        False where the sample is degenerate.
      refit: from matches float [M, K, 4] and weights float [M, T, K] to coefficients [C, M, T] of
        the least squared error, and bool [M, T], False where it is degenerate.
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


FAMILIES = {
    "affine": Family(3, affine, least_squares.affine),
    "similarity": Family(2, similarity, least_squares.similarity),
    "homography": Family(4, homography, least_squares.homography),
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
