"""Pooling of a feature map into one vector: GeM, average and maximum."""

import jax
import jax.numpy as jnp

POOLINGS = ("gem", "avg", "max")
_FLOOR = 1e-6  # activations below count as this, so that the root has a finite gradient


def pool(
    maps: jax.Array, kind: str, power: jax.Array | float = 3.0, mask: jax.Array | None = None
) -> jax.Array:
    """Pools each channel over all positions (equation 1, without the whitening).

    Args:
      maps: float [B, H, W, C], not negative for GeM.
      kind: `gem` (generalised mean), `avg` (SPoC) or `max`.
      power: p of GeM; 1 is the average, infinity the maximum.
      mask: bool [B, H, W], positions that take part; None for all.

    Returns:
      float32 [B, C]; zeros where no position takes part.

    Raises:
      ValueError: for another `kind`.
    """
    maps = maps.astype(jnp.float32)
    if mask is None:
        mask = jnp.ones(maps.shape[:3], bool)
    weights = mask[..., None]
    if kind == "max":
        best = jnp.max(jnp.where(weights, maps, -jnp.inf), axis=(1, 2))
        return jnp.where(jnp.any(mask, axis=(1, 2))[:, None], best, 0.0)
    if kind == "avg":
        return _masked_mean(maps, mask)
    if kind == "gem":
        raised = _masked_mean(jnp.maximum(maps, _FLOOR) ** power, mask)
        covered = jnp.any(mask, axis=(1, 2))[:, None]
        return jnp.where(covered, jnp.where(covered, raised, 1.0) ** (1.0 / power), 0.0)
    raise ValueError(f"kind (={kind!r}) must be one of {POOLINGS}")


def _masked_mean(maps: jax.Array, mask: jax.Array) -> jax.Array:
    count = jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)[:, None]
    return jnp.sum(jnp.where(mask[..., None], maps, 0.0), axis=(1, 2)) / count


def l2_normalize(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """Scales vectors to unit length; a zero vector stays zero, with a finite gradient."""
    squared = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
