"""Training crops: a random part of the image, distorted in aspect, resized to a square."""

import dataclasses
import math

import numpy as np
from PIL import Image

_TRIES = 10


@dataclasses.dataclass(frozen=True)
class CropSettings:
    """What is drawn for each training image (section 4.1).

    Attributes:
      size: pixels, side of the square.
      area: range of the share of the image's area.
      aspect: range of width / height.
      flip: whether half of the images are mirrored.
    """

    size: int
    area: tuple[float, float]
    aspect: tuple[float, float]
    flip: bool


def random_crop(image: np.ndarray, settings: CropSettings, rng: np.random.Generator) -> np.ndarray:
    """Cuts a random box out of an image and resizes it, antialiased.

    Args:
      image: uint8 [H, W, 3].
      settings: ranges of the box.
      rng: generator of all draws.

    Returns:
      uint8 [size, size, 3].
    """
    height, width = image.shape[:2]
    box = _draw_box(height, width, settings, rng)
    square = _resize(image, box, settings.size)
    return square[:, ::-1] if settings.flip and rng.random() < 0.5 else square


def squash(image: np.ndarray, size: int) -> np.ndarray:
    """Resizes a whole image uint8 [H, W, 3] to [size, size, 3], for validation."""
    return _resize(image, (0, 0, image.shape[1], image.shape[0]), size)


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


def _resize(image: np.ndarray, box: tuple[int, int, int, int], size: int) -> np.ndarray:
    resized = Image.fromarray(image).resize((size, size), Image.Resampling.BILINEAR, box=box)
    return np.asarray(resized)
