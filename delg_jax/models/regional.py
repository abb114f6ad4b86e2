"""Regional GeM pooling before global pooling (SuperGlobal, Shao et al., ICCV 2023)."""

import jax
import jax.numpy as jnp

WINDOW = 5  # side of a region, positions
POWER = 2.5  # of GeM over a region


def blend(maps: jax.Array, share: float, sizes: jax.Array | None = None) -> jax.Array:
    """Blends a map with the generalised mean of the region around each position.

    Args:
      maps: float [B, H, W, C], not negative.
      share: weight of the regional means; 0 gives the map itself.
      sizes: int32 [B, 2], rows and columns that each image covers from the top left; None for
        all. Regions are padded by reflection at these borders.

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
    """Pads an axis by `margin` on both sides, reflected at its first and last valid position."""
    positions = jnp.arange(-margin, maps.shape[axis] + margin)[None, :]
    last = lengths[:, None] - 1
    mirrored = jnp.where(positions > last, 2 * last - positions, jnp.abs(positions))
    index = jnp.clip(mirrored, 0, last)
    shape = [len(maps), 1, 1, 1]
    shape[axis] = index.shape[1]
    return jnp.take_along_axis(maps, index.reshape(shape), axis=axis)
