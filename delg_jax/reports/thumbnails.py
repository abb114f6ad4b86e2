"""Small pictures as data URIs, each once, within a limit of bytes."""

import base64
import io
from collections.abc import Callable, Hashable

from delg_jax.data import images

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
