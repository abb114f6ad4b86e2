"""Small pictures as data URIs, each once, within a limit of bytes."""

import base64
import functools
import io
from collections.abc import Callable, Hashable

import ml_collections
import numpy as np
from PIL import Image

from delg_jax.data import ImageSource, images
from delg_jax.errors import UserError

_SIDE = 240  # pixels, of the longest side: twice the size in a list, for dense displays
_QUALITY = 70  # of JPEG


class Thumbnails:
    """Collects pictures for one page.

    Args:
      limit: bytes of all data URIs together.

    Attributes:
      pictures: data URI, width and height of each, in pixels.
      left_out: number of pictures beyond the limit.
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
          key: that tells it from others.
          read: returns the encoded picture.

        Returns:
          Its place in `pictures`; None if it cannot be decoded or goes beyond the limit.
        """
        if key not in self._places:
            self._places[key] = self._draw(key, read)
        return self._places[key]

    def shape(self, key: Hashable) -> tuple[int, int] | None:
        """Rows and columns of an added picture before it was shrunk; None if nobody can say."""
        return self._shapes.get(key)

    def _draw(self, key: Hashable, read: Callable[[], bytes]) -> int | None:
        try:
            encoded = images.EncodedImage(read())
            self._shapes[key] = encoded.shape
            if not self._left:
                self.left_out += 1
                return None
            finer = max(encoded.shape) // _SIDE
            reduction = max(r for r in images.REDUCTIONS if r <= max(finer, 1))
            picture = encoded.picture(reduction)
        except (OSError, images.BadImageError):
            return None
        picture.thumbnail((_SIDE, _SIDE))
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=_QUALITY, optimize=True)
        uri = "data:image/jpeg;base64," + base64.b64encode(buffer.getvalue()).decode()
        if len(uri) > self._left:
            self._left = 0  # not a smaller one later: the first queries come with all pictures
            self.left_out += 1
            return None
        self._left -= len(uri)
        self.pictures.append((uri, *picture.size))
        return len(self.pictures) - 1


SIZES = (192, 768)  # longest sides that a picture is shrunk to, pixels
_KEPT = 512  # encoded pictures in memory
_PAGE_QUALITY = 85


class Pictures:
    """Reads, shrinks and encodes pictures of a database; threads may share it.

    Args:
      source: the images.
      data: the `config.data` tree, whose limits hold.
    """

    def __init__(self, source: ImageSource, data: ml_collections.ConfigDict) -> None:
        self._source, self._limits = source, (data.min_side, data.max_pixels)
        self.jpeg = functools.lru_cache(_KEPT)(self._jpeg)

    def shape(self, index: int) -> tuple[int, int]:
        """Rows and columns of a picture as it is; errors as of `shrunk`."""
        return self._open(index).shape

    def shrunk(self, index: int, size: int) -> np.ndarray:
        """A picture whose longest side is at most `size`.

        Args:
          index: of the picture in the database.
          size: pixels.

        Returns:
          uint8 [H, W, 3].

        Raises:
          UserError: if there is no such picture, or it cannot be read.
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
        """`shrunk`, encoded."""
        target = io.BytesIO()
        Image.fromarray(self.shrunk(index, size)).save(target, "JPEG", quality=_PAGE_QUALITY)
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
