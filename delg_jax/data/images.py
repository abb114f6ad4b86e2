"""Encoded images become uint8 RGB arrays, or a reason why not."""

import contextlib
import io
import warnings
from collections.abc import Iterator

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

REDUCTIONS = (1, 2, 4, 8)  # how many times smaller a JPEG can be decoded
_ORIENTATION = 0x0112  # EXIF tag
_TURNED = (5, 6, 7, 8)  # its values that exchange rows and columns


class BadImageError(Exception):
    """An image that cannot be used; its text is the reason, fit for `skipped.csv`."""


def decode(data: bytes, min_side: int = 1, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decodes JPEG, PNG and whatever else Pillow reads, honouring the EXIF orientation.

    Grey, palette, CMYK, RGBA and 16-bit images become RGB; of an animation the first frame counts.

    Args:
      data: the encoded file.
      min_side: pixels; a smaller image is refused.
      max_pixels: a larger image is refused before it is decoded.

    Returns:
      uint8 [H, W, 3].

    Raises:
      BadImageError: if the bytes are no image, are truncated, or break a limit.
    """
    return EncodedImage(data, min_side, max_pixels).decode()


class EncodedImage:
    """An image whose size is known before its pixels are; arguments and errors as of `decode`.

    Attributes:
      shape: rows and columns, the EXIF orientation honoured.
    """

    def __init__(self, data: bytes, min_side: int = 1, max_pixels: int = 100_000_000) -> None:
        with _reasons():
            self._image = Image.open(io.BytesIO(data))
        width, height = self._image.size
        if width * height > max_pixels:
            raise BadImageError(f"{width} x {height} pixels, more than {max_pixels}")
        if min(width, height) < min_side:
            raise BadImageError(f"{width} x {height} pixels, a side is under {min_side}")
        with _reasons():  # of a PNG this decodes the pixels too
            turned = self._image.getexif().get(_ORIENTATION, 1) in _TURNED
        self.shape = (width, height) if turned else (height, width)

    def decode(self, reduction: int = 1) -> np.ndarray:
        """Decodes the pixels, once.

        Args:
          reduction: of `REDUCTIONS`; a JPEG is decoded this many times smaller, for about as much
            less time. Other formats come whole.

        Returns:
          uint8 [H, W, 3].
        """
        with _reasons():
            if reduction > 1:
                width, height = self._image.size
                self._image.draft(None, (width // reduction, height // reduction))
            self._image.load()
            return np.array(_to_rgb(ImageOps.exif_transpose(self._image)))


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns whatever Pillow raises into a BadImageError."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of damaged metadata; what counts are the pixels
            yield
    except UnidentifiedImageError as error:
        raise BadImageError("not an image file") from error
    except Image.DecompressionBombError as error:
        raise BadImageError("declares too many pixels") from error
    except Exception as error:  # decoders of damaged files can raise anything
        raise BadImageError(str(error) or type(error).__name__) from error


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I;16") or image.mode == "I":
        values = np.asarray(image).astype(np.uint32)
        return Image.fromarray((values >> 8).clip(0, 255).astype(np.uint8)).convert("RGB")
    return image.convert("RGB")


def limit_size(image: np.ndarray, max_size: float) -> tuple[np.ndarray, float]:
    """Shrinks an image whose longest side exceeds `max_size`, as the official extractor does.

    Args:
      image: uint8 [H, W, 3].
      max_size: pixels; 0 for no limit.

    Returns:
      The image, and new size / old size.
    """
    height, width = image.shape[:2]
    if not max_size or max(height, width) <= max_size:
        return image, 1.0
    scale = max_size / max(height, width)
    size = (max(1, round(width * scale)), max(1, round(height * scale)))
    return np.array(Image.fromarray(image).resize(size, Image.Resampling.BILINEAR)), scale


def crop(image: np.ndarray, box: tuple[float, float, float, float]) -> np.ndarray:
    """Cuts out a box.

    Args:
      image: uint8 [H, W, 3].
      box: x1, y1, x2, y2 in pixels; rounded, and clipped to the image.

    Returns:
      uint8 [y2 - y1, x2 - x1, 3].

    Raises:
      BadImageError: if nothing of the image lies in the box.
    """
    height, width = image.shape[:2]
    x1, y1, x2, y2 = (round(float(side)) for side in box)
    x1, x2 = max(x1, 0), min(x2, width)
    y1, y2 = max(y1, 0), min(y2, height)
    if x1 >= x2 or y1 >= y2:
        raise BadImageError(f"query box {list(box)} lies outside the {width} x {height} image")
    return image[y1:y2, x1:x2]
