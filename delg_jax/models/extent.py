"""Images of different sizes in one batch, with the same results as each image alone.

A batch shares one canvas; `sizes` [B, 2] gives the part that each image covers from the top left.
Convolutions pad with zeros, so zeroing everything outside an image before each spatial convolution
gives the result of the image alone. TensorFlow's SAME padding depends on the size; shifting each
image on its canvas gives it the padding of its own size. A few canvas shapes thus serve all image
sizes, which bounds compilation.
"""

import jax
import jax.numpy as jnp

from delg_jax.models.convention import Convention

CANVAS_MULTIPLE = 4  # of the sides, so that the shifts below fit inside the canvas


def halve(sizes: jax.Array) -> jax.Array:
    """Sizes [B, 2] after a layer of stride 2 that keeps the first position."""
    return (sizes + 1) // 2


def pooled(sizes: jax.Array, convention: Convention) -> jax.Array:
    """Sizes [B, 2] after the stem's max-pool, given the sizes after the stem."""
    return (sizes - 1) // 2 if convention.pool_padding == "valid" else halve(sizes)


def conv4_sizes(sizes: jax.Array, convention: Convention, conv4_stride: int) -> jax.Array:
    """Sizes int32 [B, 2] of the conv4 maps of images of the given sizes (pixels)."""
    if convention.patches:  # whole ones, but at least one
        return sizes // conv4_stride + (sizes < conv4_stride)
    maps = halve(halve(pooled(halve(sizes), convention)))
    return halve(maps) if conv4_stride == 32 else maps


def conv5_sizes(sizes: jax.Array, convention: Convention, conv4_stride: int = 32) -> jax.Array:
    """Sizes int32 [B, 2] of the conv5 maps; their stride is 32, or that of conv4 for patches."""
    return conv4_sizes(sizes, convention, conv4_stride if convention.patches else 32)


def first_centre(convention: Convention, conv4_stride: int) -> float:
    """Pixel, along each axis, on which the first position of conv4 is centred."""
    return (conv4_stride - 1) / 2 if convention.patches else 0.0


def stem_shift(sizes: jax.Array, convention: Convention) -> jax.Array:
    """Pixels [B, 2] to shift each image down and right, for the padding of its own size."""
    if convention.stem_same:
        return sizes % 2
    if convention.pool_padding == "same":
        return 2 * (halve(sizes) % 2)
    return jnp.zeros_like(sizes)


def shift(images: jax.Array, shifts: jax.Array, multiple: int = CANVAS_MULTIPLE) -> jax.Array:
    """Moves each image of [B, H, W, C] down and right by `shifts` [B, 2] pixels.

    Raises:
      ValueError: if H or W is not a multiple of `multiple`, so that an image could wrap around.
    """
    if images.shape[1] % multiple or images.shape[2] % multiple:
        rule = f"must have sides that are multiples of {multiple}"
        raise ValueError(f"images (={images.shape}) {rule}")
    return roll(images, shifts)


def roll(maps: jax.Array, shifts: jax.Array) -> jax.Array:
    """Rolls each map of [B, H, W, C] down and right by `shifts` [B, 2] positions."""
    return jax.vmap(lambda one, by: jnp.roll(one, (by[0], by[1]), axis=(0, 1)))(maps, shifts)


def inside(shape: tuple[int, ...], sizes: jax.Array, starts: jax.Array | None = None) -> jax.Array:
    """Mask [B, H, W] of the positions inside each image.

    Args:
      shape: of the map, [B, H, W, ...].
      sizes: int32 [B, 2], valid rows and columns.
      starts: int32 [B, 2], first valid row and column; None for (0, 0).
    """
    starts = jnp.zeros_like(sizes) if starts is None else starts
    axes = []
    for axis in (0, 1):
        position = jnp.arange(shape[axis + 1])[None, :] - starts[:, axis][:, None]
        axes.append((position >= 0) & (position < sizes[:, axis][:, None]))
    return axes[0][:, :, None] & axes[1][:, None, :]


def clear_outside(
    maps: jax.Array, sizes: jax.Array | None, starts: jax.Array | None = None
) -> jax.Array:
    """Zeroes [B, H, W, C] outside each image; a no-op if `sizes` is None."""
    if sizes is None:
        return maps
    mask = inside(maps.shape, sizes, starts)[..., None]
    return jnp.where(mask, maps, jnp.zeros((), maps.dtype))
