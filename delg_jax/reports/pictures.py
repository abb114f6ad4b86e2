"""Pictures of a database by index, shrunk for a page."""

import functools
import io

import ml_collections
import numpy as np
from PIL import Image

from delg_jax.data import ImageSource, images
from delg_jax.errors import UserError

SIZES = (192, 768)  # longest sides that a picture is shrunk to, pixels
_KEPT = 512  # encoded pictures in memory
_QUALITY = 85


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
        Image.fromarray(self.shrunk(index, size)).save(target, "JPEG", quality=_QUALITY)
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
