"""How well hypotheses fit matches: squared errors, and scores summed over the matches."""

import jax
import jax.numpy as jnp

SCORINGS = ("inliers", "msac")


def squared_error(model: jax.Array, point: jax.Array) -> jax.Array:
    """Squared distance in pixels between a transformed source point and its target.

    Args:
      model: float [6, ...], coefficients of an affine transformation, or [9, ...] of a homography;
        see `transforms`.
      point: float [4, ...], source (y, x) and target (y, x); broadcast against the model.

    Returns:
      float [...]; infinite where a homography maps to behind the horizon.
    """
    y, x, target_y, target_x = point
    if len(model) == 6:
        yy, yx, xy, xx, b_y, b_x = model
        error_y = yy * y + yx * x + (b_y - target_y)
        error_x = xy * y + xx * x + (b_x - target_x)
        return error_y**2 + error_x**2
    yy, yx, b_y, xy, xx, b_x, wy, wx, one = model
    depth = wy * y + wx * x + one
    inverse = 1.0 / jnp.where(depth > 0, depth, 1.0)
    error_y = (yy * y + yx * x + b_y) * inverse - target_y
    error_x = (xy * y + xx * x + b_x) * inverse - target_x
    return jnp.where(depth > 0, error_y**2 + error_x**2, jnp.inf)


def score_of(error: jax.Array, residual: float, scoring: str) -> jax.Array:
    """What a match adds to a score.

    Args:
      error: squared, in pixels.
      residual: pixels; an inlier lies strictly nearer.
      scoring: `inliers` counts them (paper); `msac` weighs each by 1 - error / residual^2, the
        truncated quadratic loss of Torr and Zisserman ("MLESAC", CVIU 2000) turned around.

    Returns:
      int32 or float32, of the shape of `error`.
    """
    if scoring == "inliers":
        return (error < residual**2).astype(jnp.int32)
    return jnp.where(error < residual**2, 1.0 - error / residual**2, 0.0)


def score(
    models: jax.Array,
    points: jax.Array,
    count: jax.Array,
    residual: float,
    scoring: str,
    chunk: int,
) -> jax.Array:
    """Scores every hypothesis, `chunk` matches per pass.

    A pass is one fused, vectorised loop over all hypotheses; the passes end with the last match
    of the pair that has most. No array of hypotheses by matches is ever made.

    Args:
      models: float [C, M, H], coefficients.
      points: float [M, K, 4], matches first.
      count: int [M], number of matches.
      residual: pixels.
      scoring: one of `SCORINGS`.
      chunk: matches per pass; any value gives the same result.

    Returns:
      Scores [M, H], int32 for `inliers`, else float32; larger is better.
    """
    pairs, size, _ = points.shape
    present = jnp.arange(size)[None, :] < count[:, None]
    target = jnp.where(present[:, :, None], points[:, :, 2:], jnp.inf)  # never an inlier
    points = jnp.concatenate([points[:, :, :2], target], axis=2)
    points = jnp.pad(points, ((0, 0), (0, -size % chunk), (0, 0)), constant_values=jnp.inf)
    points = points.reshape(pairs, -1, chunk, 4).transpose(1, 2, 3, 0)  # [passes, chunk, 4, M]

    def one_pass(step: jax.Array, scores: jax.Array) -> jax.Array:
        for point in jax.lax.dynamic_index_in_dim(points, step, keepdims=False):
            scores += score_of(squared_error(models, point[:, :, None]), residual, scoring)
        return scores

    passes = (count.max() + chunk - 1) // chunk
    dtype = jnp.int32 if scoring == "inliers" else jnp.float32
    return jax.lax.fori_loop(0, passes, one_pass, jnp.zeros(models.shape[1:], dtype))
