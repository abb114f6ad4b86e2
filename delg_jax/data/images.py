"""Encoded images become uint8 RGB arrays, or a reason why not."""

import contextlib
import io
import os
import re
import threading
import warnings
from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
from PIL import Image, TiffImagePlugin, UnidentifiedImageError

from delg_jax.data import pixels
from delg_jax.data.image_files import FORMATS
from delg_jax.data.pixels import BadImageError

AUTO = -1  # one worker on each core
_MOST_WORKERS = 32  # each process holds two batches
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

# The limit on pixels bounds what a decoder does once per pixel, and the size of the file what it
# does once per byte. These bound the work that a few bytes can request again and again.
_MOST_SCANS = 100  # of a JPEG, as libtiff allows; encoders write about ten
_MOST_PROFILES = 10  # of a PNG, which may have one; each decompresses to a megabyte
_MOST_TILES = 300_000  # of a TIFF, which Pillow decodes one by one

_JPEG, _PNG = b"\xff\xd8", b"\x89PNG"
_SCAN, _END = 0xDA, 0xD9
# In the data of a scan, 0xFF is followed by zero or by the number of a restart
_MARKER = re.compile(rb"\xff+([^\x00\x01\xd0-\xd7\xff])")


class TooManyPixelsError(BadImageError):
    """An image that is not decoded because of its size in pixels."""


def decode(data: bytes, min_side: int = 1, max_pixels: int = 100_000_000) -> np.ndarray:
    """Decodes an image of any of `FORMATS`, whatever its name, applying the EXIF orientation.

    Pixels of any kind become RGB, see `pixels`. Of an animation, a file of several pages or several
    images (MPO), the first counts. Damaged metadata is ignored.

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
        check_encoded(data)
        with _reasons():
            self._image = _opened(data)
            self._stored = pixels.samples(self._image, data)
        check_opened(self._image)
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


def check_encoded(data: bytes) -> None:
    """Refuses a file before it is opened.

    Args:
      data: an encoded image of any format.

    Raises:
      BadImageError: for a JPEG of too many scans, each of which goes over all pixels, and a PNG of
        too many compressed profiles.
    """
    # Thumbnails, or a film after the image, may have such bytes, too: they are counted quickly
    possible = data.count(bytes((0xFF, _SCAN))) if data.startswith(_JPEG) else 0
    if possible > _MOST_SCANS and _scans(data) > _MOST_SCANS:
        raise BadImageError(f"a JPEG of more than {_MOST_SCANS} scans")
    if data.startswith(_PNG) and data.count(b"iCCP") > _MOST_PROFILES:
        raise BadImageError(f"a PNG of more than {_MOST_PROFILES} colour profiles")


def check_opened(image: Any) -> None:
    """Refuses an image that is opened and not decoded; a BadImageError for too many tiles."""
    tiles = len(getattr(image, "tile", ()))
    if tiles > _MOST_TILES:
        raise BadImageError(f"is stored in {tiles} parts, more than {_MOST_TILES}")


def _scans(data: bytes) -> int:
    """Number of scans of the first image of a JPEG, at most one more than allowed."""
    scans, place = 0, len(_JPEG)
    while scans <= _MOST_SCANS and (found := _MARKER.search(data, place)):
        place, kind = found.end(), found[1][0]
        if kind == _END:
            break
        scans += kind == _SCAN
        place += int.from_bytes(data[place : place + 2], "big")
    return scans


def worker_count(workers: int) -> int:
    """The number of processes or threads that decode images, as `config.data.workers` asks for.

    Args:
      workers: number, or `AUTO` for one on each core that this process may use, at most 32.
    """
    if workers != AUTO:
        return workers
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(usable, _MOST_WORKERS)
