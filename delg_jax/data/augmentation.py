"""Training crops: a random part of the image, distorted in aspect, resized to a square."""

import dataclasses
import math

import numpy as np
from PIL import Image

from delg_jax.data.images import REDUCTIONS, EncodedImage

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """What is drawn for each training image (section 4.1).

    Attributes:
      size: pixels, side of the square.
      area: range of the share of the image's area.
      aspect: range of width / height.
      flip: whether half of the images are mirrored.
      reduced: whether a large JPEG is decoded only as large as the box needs, which saves time.
    """

    size: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: bool
    reduced: bool = False


def random_crop(
    image: EncodedImage, settings: CropSettings, rng: np.random.Generator
) -> np.ndarray:
    """Cuts a random box out of an image and resizes it, antialiased.

    Args:
      image: not yet decoded.
      settings: ranges of the box.
      rng: generator of all draws.

    Returns:
      uint8 [size, size, 3].

    Raises:
      BadImageError: if the image cannot be decoded.
    """
    box = _draw_box(*image.shape, settings, rng)
    square = _resize(image, box, settings)
    return square[:, ::-1] if settings.flip and rng.random() < 0.5 else square


def squash(image: EncodedImage, settings: CropSettings) -> np.ndarray:
    """Resizes a whole image to uint8 [size, size, 3], for validation; else as `random_crop`."""
    return _resize(image, (0, 0, image.shape[1], image.shape[0]), settings)


def _draw_box(height: int, width: int, settings: CropSettings, rng: np.random.Generator):
    """Left, top, right, bottom; the whole image if no drawn box fits in it."""
    for _ in range(_TRIES):
        area = height * width * rng.uniform(*settings.area)
        aspect = math.exp(rng.uniform(*np.log(settings.aspect)))
        w, h = round(math.sqrt(area * aspect)), round(math.sqrt(area / aspect))
        if 0 < w <= width and 0 < h <= height:
            left, top = rng.integers(width - w + 1), rng.integers(height - h + 1)
            return int(left), int(top), int(left) + w, int(top) + h
    return 0, 0, width, height


def _resize(
    image: EncodedImage, box: tuple[int, int, int, int], settings: CropSettings
) -> np.ndarray:
    picture = image.picture(_reduction(box, settings.size) if settings.reduced else 1)
    (height, width), (columns, rows) = image.shape, picture.size
    part = (
        box[0] * columns / width,
        box[1] * rows / height,
        min(box[2] * columns / width, columns),
        min(box[3] * rows / height, rows),
    )
    square = (settings.size, settings.size)
    return np.array(picture.resize(square, Image.Resampling.BILINEAR, box=part))


def _reduction(box: tuple[int, int, int, int], size: int) -> int:
    """How many times smaller the box may be decoded and still has `size` pixels a side."""
    side = min(box[2] - box[0], box[3] - box[1])
    return max(n for n in REDUCTIONS if n == 1 or side >= n * size)
