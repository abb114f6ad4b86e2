"""Affine transformations by random sample consensus, for many image pairs at a time."""

from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

# Three matches fit any affine transformation and so verify nothing (official code).
MIN_MATCHES = 4

# Samples whose height is below this share of their longest side count as collinear.
FLATTEST_TRIANGLE = 1e-3


class AffineEstimate(NamedTuple):
    """The best hypothesis of each pair.

    Attributes:
      transform: float32 [M, 2, 3], [A | b] with target = A source + b and points as (y, x);
        zeros where nothing was found.
      inliers: int32 [M].
      inlier_mask: bool [M, K].
    """

    transform: jax.Array
    inliers: jax.Array
    inlier_mask: jax.Array


@partial(jax.jit, static_argnames=("hypotheses", "chunk"))
def estimate(
    source: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    pair_ids: jax.Array,
    key: jax.Array,
    hypotheses: int,
    residual: float,
    chunk: int = 8,
) -> AffineEstimate:
    """Fits target = A source + b to each pair by RANSAC (Fischler, Bolles, 1981).

    Every hypothesis goes through three distinct matches; the first one with the most inliers
    wins. Samples on a line, in either image, are passed over. What a pair draws depends on
    `key`, its id and its number of matches, not on padding nor on the other pairs.

    Memory is O(M (hypotheses + K)), and time goes to the matches, not to the padding.

    Args:
      source: float [M, K, 2], points (y, x) in pixels.
      target: float [M, K, 2], the points they are matched with.
      mask: bool [M, K], False where there is no match.
      pair_ids: int [M], name of each pair for the random draws.
      key: random key.
      hypotheses: samples drawn per pair, H.
      residual: pixels; a match is an inlier if A source + b is strictly nearer to its target.
      chunk: matches scored in one pass over the hypotheses; any value gives the same result.

    Returns:
      The estimates; pairs with fewer than 4 matches have 0 inliers.
    """
    count = mask.sum(axis=1)
    source, source_centre = _centred(source, mask, count)
    target, target_centre = _centred(target, mask, count)
    points = jnp.concatenate([source, target], axis=2)  # [M, K, 4]
    # Matches first: ranks below `count` are then samples, and padding need not be scored
    order = jnp.argsort(~mask, axis=1, stable=True)
    points_first = jnp.take_along_axis(points, order[:, :, None], axis=1)

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, pair_ids)
    ranks = jax.vmap(partial(_distinct_ranks, samples=hypotheses))(keys, count)
    models, possible = _through_samples(points_first, ranks)
    scores = _count_inliers(models, points_first, count, residual, chunk)
    best = jnp.argmax(jnp.where(possible, scores, 0), axis=1)
    model = jnp.take_along_axis(models, best[None, :, None], axis=2)  # [6, M, 1]

    found = (count >= MIN_MATCHES) & possible.any(axis=1)
    inlier_mask = _is_inlier(model, jnp.moveaxis(points, 2, 0), residual)
    inlier_mask &= mask & found[:, None]
    linear = jnp.moveaxis(model[:4, :, 0], 0, 1).reshape(-1, 2, 2)
    offset = jnp.moveaxis(model[4:, :, 0], 0, 1) + target_centre
    offset -= jnp.einsum("mij,mj->mi", linear, source_centre)
    transform = jnp.concatenate([linear, offset[:, :, None]], axis=2)
    return AffineEstimate(
        transform=jnp.where(found[:, None, None], transform, 0.0),
        inliers=inlier_mask.sum(axis=1, dtype=jnp.int32),
        inlier_mask=inlier_mask,
    )


def _centred(points: jax.Array, mask: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the mean of the matches to the origin, where float32 is finest."""
    points = points.astype(jnp.float32)
    total = jnp.where(mask[:, :, None], points, 0.0).sum(axis=1)
    centre = total / jnp.maximum(count, 1)[:, None]
    return points - centre[:, None, :], centre


def _distinct_ranks(key: jax.Array, count: jax.Array, samples: int) -> jax.Array:
    """Draws triples of distinct ranks below `count`, uniformly: int32 [3, samples].

    Each rank is drawn among those left and then moved past the ones taken before it.
    """
    left = count - jnp.arange(3)[:, None]
    drawn = jnp.floor(jax.random.uniform(key, (3, samples)) * left).astype(jnp.int32)
    first, second, third = jnp.clip(drawn, 0, jnp.maximum(left - 1, 0))
    second += second >= first
    third += third >= jnp.minimum(first, second)
    third += third >= jnp.maximum(first, second)
    return jnp.stack([first, second, third])


def _through_samples(points: jax.Array, ranks: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Solves for the affine transformation through each sample, by Cramer's rule.

    Args:
      points: [M, K, 4], source (y, x) and target (y, x).
      ranks: int [M, 3, H].

    Returns:
      Coefficients [6, M, H], in the order A_yy, A_yx, A_xy, A_xx, b_y, b_x, and
      bool [M, H], False where the sample is degenerate.
    """
    pairs, _, samples = ranks.shape
    corners = jnp.take_along_axis(points, ranks.reshape(pairs, -1, 1), axis=1)
    corners = jnp.moveaxis(corners.reshape(pairs, 3, samples, 4), (1, 3), (0, 1))
    first, second, third = corners  # [4, M, H] each
    (u_y, u_x, p_y, p_x), (v_y, v_x, q_y, q_x) = second - first, third - first
    determinant = u_y * v_x - u_x * v_y
    possible = _spans(u_y, u_x, v_y, v_x) & _spans(p_y, p_x, q_y, q_x)
    scale = 1.0 / jnp.where(possible, determinant, 1.0)
    yy, yx = (p_y * v_x - q_y * u_x) * scale, (q_y * u_y - p_y * v_y) * scale
    xy, xx = (p_x * v_x - q_x * u_x) * scale, (q_x * u_y - p_x * v_y) * scale
    y, x, target_y, target_x = first
    b_y, b_x = target_y - yy * y - yx * x, target_x - xy * y - xx * x
    return jnp.stack([yy, yx, xy, xx, b_y, b_x]), possible


def _spans(u_y: jax.Array, u_x: jax.Array, v_y: jax.Array, v_x: jax.Array) -> jax.Array:
    """Whether the triangle with sides u and v from one corner is not flat."""
    longest = jnp.maximum(u_y**2 + u_x**2, v_y**2 + v_x**2)
    longest = jnp.maximum(longest, (u_y - v_y) ** 2 + (u_x - v_x) ** 2)
    return jnp.abs(u_y * v_x - u_x * v_y) > FLATTEST_TRIANGLE * longest


def _is_inlier(model: jax.Array, point: jax.Array, residual: float) -> jax.Array:
    """Whether points [4, M, ...] fit models [6, M, ...]; the two broadcast to each other."""
    yy, yx, xy, xx, b_y, b_x = model
    y, x, target_y, target_x = point
    error_y = yy * y + yx * x + (b_y - target_y)
    error_x = xy * y + xx * x + (b_x - target_x)
    return error_y**2 + error_x**2 < residual**2


def _count_inliers(
    models: jax.Array, points: jax.Array, count: jax.Array, residual: float, chunk: int
) -> jax.Array:
    """Counts the inliers of every hypothesis, `chunk` matches per pass.

    A pass is one fused, vectorised loop over all hypotheses; the passes end with the last match
    of the pair that has most.

    Args:
      models: [6, M, H].
      points: [M, K, 4], matches first.
      count: int [M], number of matches.
      residual: pixels.
      chunk: matches per pass.

    Returns:
      Inliers int32 [M, H].
    """
    pairs, size, _ = points.shape
    present = jnp.arange(size)[None, :] < count[:, None]
    target = jnp.where(present[:, :, None], points[:, :, 2:], jnp.inf)  # never an inlier
    points = jnp.concatenate([points[:, :, :2], target], axis=2)
    points = jnp.pad(points, ((0, 0), (0, -size % chunk), (0, 0)), constant_values=jnp.inf)
    points = points.reshape(pairs, -1, chunk, 4).transpose(1, 2, 3, 0)  # [passes, chunk, 4, M]

    def one_pass(step: jax.Array, inliers: jax.Array) -> jax.Array:
        for point in jax.lax.dynamic_index_in_dim(points, step, keepdims=False):
            inliers += _is_inlier(models, point[:, :, None], residual)
        return inliers

    passes = (count.max() + chunk - 1) // chunk
    return jax.lax.fori_loop(0, passes, one_pass, jnp.zeros(models.shape[1:], jnp.int32))
