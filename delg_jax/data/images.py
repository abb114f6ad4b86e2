"""Encoded images become uint8 RGB arrays, or a reason why not."""

import contextlib
import io
import threading
import warnings
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from delg_jax.data import decoding_cost, pixels
from delg_jax.data.image_files import FORMATS
from delg_jax.data.pixels import BadImageError

REDUCTIONS = (1, 2, 4, 8)  # how many times smaller a JPEG can be decoded
_ORIENTATION = 0x0112  # EXIF tag
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_TURNED = (5, 6, 7, 8)  # orientations that exchange rows and columns
_LONGEST_REASON = 200  # characters; texts of decoders can quote the file


class TooManyPixelsError(BadImageError):
    """An image that is not decoded because of its size in pixels."""


def decode(data: bytes, min_side: int = 1, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decodes an image of any of `FORMATS`, whatever its name, applying the EXIF orientation.

    Pixels of any kind become RGB, see `pixels`. Of an animation, a file of several pages or several
    images (MPO), the first counts. Damaged metadata is passed over.

    Args:
      data: the encoded file.
      min_side: pixels; a smaller image is refused.
      max_pixels: a larger image is refused before it is decoded.

    Returns:
      uint8 [H, W, 3].

    Raises:
      BadImageError: if the bytes are no image, are truncated, break a limit, hold values without a
        range, or would take far longer to decode than their size explains.
      MemoryError: if the machine lacks memory, which says nothing about the image.
    """
    return EncodedImage(data, min_side, max_pixels).decode()


class EncodedImage:
    """An image whose size is known before its pixels are; arguments and errors as of `decode`.

    Attributes:
      shape: rows and columns, the EXIF orientation applied.
    """

    def __init__(self, data: bytes, min_side: int = 1, max_pixels: int = 100_000_000) -> None:
        if not data:
            raise BadImageError("an empty file")
        decoding_cost.check_file(data)
        with _reasons():
            self._image = _opened(data)
            self._stored = pixels.samples(self._image, data)
        decoding_cost.check_opened(self._image)
        self._data = data if self._stored.are_wide_colours else b""
        width, height = self._image.size
        if width * height > max_pixels:
            raise TooManyPixelsError(f"{width} x {height} pixels, more than {max_pixels}")
        if min(width, height) < min_side:
            raise BadImageError(f"{width} x {height} pixels, a side is under {min_side}")
        with _reasons():
            if self._image.format == "PNG":
                self._image.load()  # its metadata may follow its pixels
            # the size of a TIFF is that of the upright image already
            turned = self._image.format != "TIFF" and _orientation(self._image) in _TURNED
        self.shape = (width, height) if turned else (height, width)

    def decode(self) -> np.ndarray:
        """Decodes the pixels, once; uint8 [H, W, 3]."""
        return np.array(self.to_pil())

    def to_pil(self, reduction: int = 1) -> Image.Image:
        """Decodes the pixels, once, without a copy of them for NumPy.

        Args:
          reduction: of `REDUCTIONS`; a JPEG is decoded this many times smaller, for about as much
            less time. Other formats come whole.

        Returns:
          An upright RGB image of Pillow.
        """
        with _reasons():
            if reduction > 1:
                width, height = self._image.size
                self._image.draft(None, (width // reduction, height // reduction))
            self._image.load()
            image = pixels.to_rgb(self._image, self._stored, lambda: _opened(self._data))
            upright = _UPRIGHT.get(_orientation(self._image))  # of a TIFF none is left
            found = image if upright is None else image.transpose(upright)
            found.info = {}  # a comment or profile would go into what is saved from it
            return found


class _Silence:
    """Ignores warnings while any thread is inside.

    `warnings.catch_warnings` alone puts back the wrong filters where threads overlap.
    """

    def __init__(self) -> None:
        self._lock, self._inside = threading.Lock(), 0

    def __enter__(self) -> None:
        with self._lock:
            if not self._inside:
                self._filters = warnings.catch_warnings()
                self._filters.__enter__()
                warnings.simplefilter("ignore")
            self._inside += 1

    def __exit__(self, *_: object) -> None:
        with self._lock:
            self._inside -= 1
            if not self._inside:
                self._filters.__exit__(None, None, None)


_SILENCE = _Silence()


def _opened(data: bytes) -> Image.Image:
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        if data[:4] in TiffImagePlugin.PREFIXES:  # whose pixels Pillow may not know
            try:
                TiffImagePlugin.TiffImageFile(io.BytesIO(data))
            except SyntaxError as error:
                raise ValueError(f"{error} (channels of 8 and 16 bits are read)") from error
        raise


@contextlib.contextmanager
def _reasons() -> Iterator[None]:
    """Turns whatever Pillow raises into a BadImageError."""
    try:
        with _SILENCE:  # Pillow warns of damaged metadata
            yield
    except (BadImageError, MemoryError):
        raise
    except UnidentifiedImageError as error:
        raise BadImageError("not an image file") from error
    except Image.DecompressionBombError as error:
        raise BadImageError("declares too many pixels") from error
    except Exception as error:  # decoders of damaged files can raise anything
        text = " ".join(str(error).split()) or type(error).__name__
        text = "".join(letter if letter.isprintable() else "?" for letter in text)
        raise BadImageError(f"cannot be decoded: {text[:_LONGEST_REASON]}") from error


def _orientation(image: Image.Image) -> int:
    """The EXIF orientation, 1 to 8; upright if none can be read."""
    try:
        return image.getexif().get(_ORIENTATION, 1)
    except Exception:  # as of pixels, but an image without metadata is whole
        return 1


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


class Loaded(NamedTuple):
    """An image that is ready for the network.

    Attributes:
      image: uint8 [H, W, 3], shrunk to the size limit.
      scale: size of `image` / size of the original.
      size: height and width of the original, after cropping.
    """

    image: np.ndarray
    scale: float
    size: tuple[int, int]


def prepare(
    image: np.ndarray, box: tuple[float, float, float, float] | None, max_size: float
) -> Loaded:
    """Crops an image to a box and shrinks it by the official rule.

    The size limit shrinks with the crop, so that a query keeps the resolution that it has inside
    the full image.

    Args:
      image: uint8 [H, W, 3].
      box: x1, y1, x2, y2 in pixels, or None.
      max_size: pixels, for the full image; 0 for no limit.

    Returns:
      The image, its scale, and its original size.

    Raises:
      BadImageError: if nothing of the image lies in the box.
    """
    if box is None:
        return Loaded(*limit_size(image, max_size), image.shape[:2])
    cut = crop(image, box)
    share = max(cut.shape[:2]) / max(image.shape[:2])
    return Loaded(*limit_size(cut, max_size * share), cut.shape[:2])


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
