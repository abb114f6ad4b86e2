"""Selection of local features among the positions of conv4 (section 4.1)."""

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.features.local_features import LocalFeatures


def top_cells(
    scores: jax.Array, mask: jax.Array, count: int, threshold: float
) -> tuple[jax.Array, jax.Array, jax.Array]:
    """Selects the positions with the highest attention on one pyramid level.

    Args:
      scores: float32 [B, H, W], attention.
      mask: bool [B, H, W], positions that the image covers.
      count: number of positions, at most H * W.
      threshold: tau, the minimum score.

    Returns:
      Flat positions int32 [B, count], best first, ties in reading order; scores float32
      [B, count]; bool [B, count], False on padding.
    """
    flat = jnp.where(mask & (scores >= threshold), scores, -jnp.inf)
    flat = flat.reshape(scores.shape[0], -1)
    values, cells = jax.lax.top_k(flat, count)
    valid = jnp.isfinite(values)
    return cells, jnp.where(valid, values, 0.0), valid


def suppress(scores: jax.Array, mask: jax.Array, radius: int) -> jax.Array:
    """Non-maximum suppression: keeps the best position of each neighbourhood.

    Args:
      scores: float32 [B, H, W], attention.
      mask: bool [B, H, W], positions that the image covers; others suppress nothing.
      radius: cells; the neighbourhood is a square of 2 * radius + 1. 0 keeps all.

    Returns:
      bool [B, H, W], positions of `mask` that are kept; ties go to the first in reading order.
    """
    if not radius:
        return mask
    flat = jnp.where(mask, scores, -jnp.inf).reshape(scores.shape[0], -1)
    order = jnp.argsort(-flat, axis=1, stable=True)
    # Ranks have no ties: the best has the highest
    ranks = flat.shape[1] - jnp.argsort(order, axis=1).reshape(scores.shape)
    ranks = jnp.where(mask, ranks, 0).astype(jnp.int32)
    best, side = ranks, 2 * radius + 1
    for window in ((1, side, 1), (1, 1, side)):
        best = jax.lax.reduce_window(best, 0, jax.lax.max, window, (1, 1, 1), "SAME")
    return mask & (ranks == best)


def merge(levels: list[LocalFeatures], count: int) -> LocalFeatures:
    """Merges the features of all levels of one image and keeps the best.

    Args:
      levels: LocalFeatures [K_level] of one image, NumPy or JAX, in the order of the scales.
      count: number of features to keep, and to pad to.

    Returns:
      LocalFeatures [count] of the same kind of arrays, best first; ties keep the order of the
      levels. Padding is zero.
    """
    if not levels:
        raise ValueError(f"levels (={levels!r}) must not be empty")
    arrays = levels[0].mask.__array_namespace__()
    joined = LocalFeatures(*(arrays.concatenate(field) for field in zip(*levels, strict=True)))
    order = arrays.argsort(arrays.where(joined.mask, -joined.scores, np.inf), stable=True)[:count]
    padded = []
    for field in joined:
        kept = joined.mask[order].reshape(-1, *[1] * (field.ndim - 1))
        field = arrays.where(kept, field[order], np.zeros((), field.dtype))
        missing = [(0, count - len(order))] + [(0, 0)] * (field.ndim - 1)
        padded.append(arrays.pad(field, missing))
    return LocalFeatures(*padded)
