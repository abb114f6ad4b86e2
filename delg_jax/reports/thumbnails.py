"""Resized images: data URIs for the report, JPEG files for the search page."""

import base64
import functools
import io
from collections.abc import Callable, Hashable

import ml_collections
import numpy as np
from PIL import Image

from delg_jax.data import ImageSource, images
from delg_jax.errors import UserError

SIZES = (192, 768)  # pixels of the longest side on the search page
_THUMBNAIL_SIZE = 240  # pixels of the longest side: twice the size in a list, for dense displays
_THUMBNAIL_QUALITY = 70  # of JPEG
_PAGE_QUALITY = 85  # of JPEG
_CACHED = 512  # encoded pictures


class Thumbnails:
    """Collects pictures of one page as data URIs, each once.

    Args:
      limit: maximum bytes of all data URIs together.

    Attributes:
      pictures: data URI, width and height of each, in pixels.
      left_out: number of pictures omitted because of the limit.
    """

    def __init__(self, limit: float) -> None:
        self.pictures: list[tuple[str, int, int]] = []
        self.left_out = 0
        self._left = limit
        self._places: dict[Hashable, int | None] = {}
        self._shapes: dict[Hashable, tuple[int, int]] = {}

    def add(self, key: Hashable, read: Callable[[], bytes]) -> int | None:
        """Adds a picture unless it is there already.

        Args:
          key: identifies the picture.
          read: returns the encoded picture.

        Returns:
          Its index in `pictures`; None if it cannot be decoded or exceeds the limit.
        """
        if key not in self._places:
            self._places[key] = self._draw(key, read)
        return self._places[key]

    def shape(self, key: Hashable) -> tuple[int, int] | None:
        """Original rows and columns of an added picture; None if unknown."""
        return self._shapes.get(key)

    def _draw(self, key: Hashable, read: Callable[[], bytes]) -> int | None:
        try:
            encoded = images.EncodedImage(read())
            self._shapes[key] = encoded.shape
            if not self._left:
                self.left_out += 1
                return None
            finer = max(encoded.shape) // _THUMBNAIL_SIZE
            reduction = max(r for r in images.REDUCTIONS if r <= max(finer, 1))
            picture = encoded.picture(reduction)
        except (OSError, images.BadImageError):
            return None
        picture.thumbnail((_THUMBNAIL_SIZE, _THUMBNAIL_SIZE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_THUMBNAIL_QUALITY, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(uri) > self._left:
            self._left = 0  # adds no smaller one later, so that the first queries have all pictures
            self.left_out += 1
            return None
        self._left -= len(uri)
        self.pictures.append((uri, *picture.size))
        return len(self.pictures) - 1


class Pictures:
    """Reads, resizes and encodes images of a database; thread-safe.

    Args:
      source: the images.
      data: the `config.data` tree, with the limits on images.
    """

    def __init__(self, source: ImageSource, data: ml_collections.ConfigDict) -> None:
        self._source, self._limits = source, (data.min_side, data.max_pixels)
        self.jpeg = functools.lru_cache(_CACHED)(self._jpeg)

    def shape(self, index: int) -> tuple[int, int]:
        """Original rows and columns of an image; errors as for `resized`."""
        return self._open(index).shape

    def resized(self, index: int, size: int) -> np.ndarray:
        """An image resized so that its longest side is at most `size`.

        Args:
          index: of the image in the database.
          size: pixels.

        Returns:
          uint8 [H, W, 3].

        Raises:
          UserError: if there is no such image, or it cannot be read.
        """
        encoded = self._open(index)
        longest = max(encoded.shape)
        fitting = [times for times in images.REDUCTIONS if longest // times >= size]
        try:
            picture = np.asarray(encoded.picture(max(fitting, default=1)))
        except images.BadImageError as error:
            raise UserError("image", index, f"cannot be shown: {error}") from error
        return images.limit_size(picture, size)[0]

    def _jpeg(self, index: int, size: int) -> bytes:
        """`resized`, encoded."""
        target = io.BytesIO()
        Image.fromarray(self.resized(index, size)).save(target, "JPEG", quality=_PAGE_QUALITY)
        return target.getvalue()

    def _open(self, index: int) -> images.EncodedImage:
        if not 0 <= index < len(self._source):
            rule = f"must be the index of an image, 0 to {len(self._source) - 1}"
            raise UserError("image", index, rule)
        try:
            return images.EncodedImage(self._source.read(index), *self._limits)
        except OSError as error:
            raise UserError("image", index, f"cannot be read: {error.strerror}") from error
        except images.BadImageError as error:
            raise UserError("image", index, f"cannot be shown: {error}") from error
