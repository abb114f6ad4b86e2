"""Regional pooling before global pooling (SuperGlobal, Shao et al., ICCV 2023)."""

import jax
import jax.numpy as jnp

WINDOW = 5  # positions, the side of a region
POWER = 2.5  # of the generalised mean over a region


def blend(maps: jax.Array, share: float, sizes: jax.Array | None = None) -> jax.Array:
    """Blends a map with the generalised means of the regions around its positions.

    Args:
      maps: float [B, H, W, C], not negative.
      share: of the regional means; 0 gives the map itself.
      sizes: int32 [B, 2], rows and columns that each image covers from the top left; None for
        all. Regions are reflected at these borders.

    Returns:
      float32 [B, H, W, C]; positions beyond an image's own are undefined.
    """
    maps = maps.astype(jnp.float32)
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.asarray(maps.shape[1:3], jnp.int32)[None, :], (len(maps), 2))
    margin = WINDOW // 2
    powers = _reflected(_reflected(maps**POWER, sizes[:, 0], 1, margin), sizes[:, 1], 2, margin)
    window = (1, WINDOW, WINDOW, 1)
    sums = jax.lax.reduce_window(powers, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID")
    return share * (sums / WINDOW**2) ** (1.0 / POWER) + (1.0 - share) * maps


def _reflected(maps: jax.Array, lengths: jax.Array, axis: int, margin: int) -> jax.Array:
    """Lengthens an axis by `margin` on both sides, mirrored at its first and last valid place."""
    positions = jnp.arange(-margin, maps.shape[axis] + margin)[None, :]
    last = lengths[:, None] - 1
    mirrored = jnp.where(positions > last, 2 * last - positions, jnp.abs(positions))
    index = jnp.clip(mirrored, 0, last)
    shape = [len(maps), 1, 1, 1]
    shape[axis] = index.shape[1]
    return jnp.take_along_axis(maps, index.reshape(shape), axis=axis)
