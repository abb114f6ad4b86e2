"""The image pyramid: sizes, canvases, the official bilinear resize, and batches of levels."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.features.pyramid_level import LevelPlan

# Sides of canvases grow by square roots of two, as the scales of pyramids do; an image and each of
# its levels is therefore on one of a few canvases
_LEAST_SIDE = 256  # pixels, of the smallest of a few canvases
_SHAPED_SIDE = 512  # up to this side, there are only square ones
_SHORT_SIDE = 0.75  # of canvases that are not square: photographs of 4:3 fit exactly
_CELL = 32  # pixels; sides of a canvas are multiples


def scaled_size(size: tuple[int, int], scale: float) -> tuple[int, int]:
    """Rows and columns of a pyramid level: round(size * scale) in float32, halves to even."""
    scaled = np.round(np.asarray(size, np.float32) * np.float32(scale))
    return max(1, int(scaled[0])), max(1, int(scaled[1]))


def canvas_shape(size: tuple[int, int], step: int) -> tuple[int, int]:
    """Canvas of a level: each side rounded up to a multiple of `step` pixels.

    Sides far above `step` are rounded up to a multiple of 1/16 of their power of two, so that the
    number of canvases grows with the logarithm of the size and padding stays below 1/16.

    Args:
      size: rows and columns of the level.
      step: pixels; 0 for one of a few canvases: squares of 256, 512, 736, 1024, 1472, ... pixels,
        and from 736 on canvases of 4:3 and 3:4, too.
    """
    if not step:
        return _one_of_a_few(size)
    return _round_up(size[0], step), _round_up(size[1], step)


def _round_up(side: int, step: int) -> int:
    coarse = step * power_of_two(side // (16 * step))
    return -(-side // coarse) * coarse


def _one_of_a_few(size: tuple[int, int]) -> tuple[int, int]:
    longest = max(*size, 1)
    halves = math.ceil(2 * math.log2(longest) - 1e-3)  # so that round(1024 / sqrt(2)) fits
    halves = max(halves, round(2 * math.log2(_LEAST_SIDE)))
    if longest <= _SHAPED_SIDE:
        halves += halves % 2
    side = 2.0 ** (halves / 2)
    long, short = (-(-round(length) // _CELL) * _CELL for length in (side, _SHORT_SIDE * side))
    if side <= _SHAPED_SIDE or min(size) > round(_SHORT_SIDE * side):
        return long, long
    return (short, long) if size[0] <= size[1] else (long, short)


def power_of_two(number: int) -> int:
    """The largest power of two up to `number`, at least 1."""
    return 1 << max(number.bit_length() - 1, 0)


def source_shape(size: tuple[int, int], step: int) -> tuple[int, int]:
    """Canvas of an image before resizing: each side rounded up to a power of two.

    Resizing reads only the image, so that a large canvas costs memory but no time.

    Args:
      size: rows and columns of the image.
      step: as of `canvas_shape`; 0 for the same few canvases.
    """
    if not step:
        return _one_of_a_few(size)
    return 1 << (size[0] - 1).bit_length(), 1 << (size[1] - 1).bit_length()


def place(images: list[np.ndarray], shape: tuple[int, int]) -> np.ndarray:
    """Places images uint8 [h, w, 3] at the top left of zero canvases uint8 `[B, *shape, 3]`."""
    canvas = np.zeros((len(images), *shape, 3), np.uint8)
    for row, image in zip(canvas, images, strict=True):
        row[: image.shape[0], : image.shape[1]] = image
    return canvas


def resize(
    images: jax.Array, sizes: jax.Array, targets: jax.Array, shape: tuple[int, int]
) -> jax.Array:
    """Bilinear resize with half-pixel centres and without antialiasing, as in TensorFlow 2.

    Args:
      images: [B, H, W, 3], each image at the top left of its canvas.
      sizes: int32 [B, 2], height and width of each image.
      targets: int32 [B, 2], height and width to resize to.
      shape: static canvas of the result.

    Returns:
      float32 `[B, *shape, 3]`; the border is repeated beyond the targets.
    """
    return jax.vmap(lambda image, size, target: _resize_one(image, size, target, shape))(
        images, sizes, targets
    )


def _resize_one(image, size, target, shape: tuple[int, int]) -> jax.Array:
    image = image.astype(jnp.float32)
    for axis in (0, 1):
        low, high, weight = _taps(size[axis], target[axis], shape[axis])
        weight = weight.reshape((-1, 1, 1) if axis == 0 else (1, -1, 1))
        first = jnp.take(image, low, axis=axis)
        image = first + (jnp.take(image, high, axis=axis) - first) * weight
    return image


def _taps(size, target, length: int) -> tuple[jax.Array, jax.Array, jax.Array]:
    """The two source positions of each target position, and the weight of the second."""
    scale = size.astype(jnp.float32) / target.astype(jnp.float32)
    position = (jnp.arange(length, dtype=jnp.float32) + 0.5) * scale - 0.5
    floor = jnp.floor(position)
    last = size - 1
    low = jnp.clip(floor.astype(jnp.int32), 0, last)
    high = jnp.clip(floor.astype(jnp.int32) + 1, 0, last)
    return low, high, position - floor


class Member(NamedTuple):
    """One level of one image.

    Attributes:
      image: number of the image.
      plan: what to extract from the level.
      target: height and width of the level.
    """

    image: int
    plan: LevelPlan
    target: tuple[int, int]


class Batch(NamedTuple):
    """Levels with the same canvas and outputs.

    Attributes:
      shape: height and width of the canvas.
      max_features: maximum number of local features; 0 for none.
      pooled: whether to compute global descriptors.
      members: the levels, of any images and scales.
    """

    shape: tuple[int, int]
    max_features: int
    pooled: bool
    members: list[Member]


def arrange(
    sizes: Sequence[tuple[int, int]], plans: Sequence[LevelPlan], step: int, pixels: int
) -> list[Batch]:
    """Groups all levels of all images into batches of 1, 2, 4, 8, ... levels.

    Powers of two add up to any number of levels, so that no batch is padded and few batch sizes
    are compiled for each canvas.

    Args:
      sizes: height and width of each image.
      plans: levels of every image.
      step: pixels, see `pyramid.canvas_shape`.
      pixels: maximum total of the canvases of a batch; a single larger canvas is a batch of one.

    Returns:
      Batches that contain each level of each image once.
    """
    groups: dict[tuple, list[Member]] = {}
    for plan in plans:
        for image, size in enumerate(sizes):
            target = scaled_size(size, plan.scale)
            key = (canvas_shape(target, step), plan.max_features, plan.pooled)
            groups.setdefault(key, []).append(Member(image, plan, target))
    batches = []
    for (shape, max_features, pooled), members in groups.items():
        largest = power_of_two(pixels // (shape[0] * shape[1]))
        while members:
            length = min(largest, power_of_two(len(members)))
            batches.append(Batch(shape, max_features, pooled, members[:length]))
            members = members[length:]
    return batches
