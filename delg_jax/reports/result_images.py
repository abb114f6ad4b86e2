"""Images of a report or page: thumbnails, and rows of a query with its results."""

import base64
import dataclasses
import functools
import io
from collections.abc import Callable, Hashable, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from delg_jax.data import ImageSource, images
from delg_jax.errors import UserError
from delg_jax.features.origins import Box
from delg_jax.retrieval.searcher import Hit, Searcher

FRAMES = {
    "query": "#1f77b4",
    "correct": "#2ca02c",
    "wrong": "#d62728",
    "ignored": "#999999",
    "found": "#555555",  # without ground truth
}

_TILE, _FRAME, _GAP, _LINE = 112, 4, 6, 18  # pixels; _LINE is the height of a line of text
_MARK = 7  # half the side of the mark
SIZES = (192, 768)  # pixels of the longest side on the search page
_THUMBNAIL_SIZE = 240  # pixels of the longest side: twice the size in a list, for dense displays
_THUMBNAIL_QUALITY = 70  # of JPEG
_PAGE_QUALITY = 85  # of JPEG
_CACHED = 512  # encoded pictures


@dataclasses.dataclass(frozen=True)
class Tile:
    """One image of a row.

    Attributes:
      picture: uint8 [H, W, 3].
      kind: decides the colour of the frame; one of `FRAMES`.
      marked: whether to draw a mark in its corner.
    """

    picture: np.ndarray
    kind: str
    marked: bool = False


def draw(rows: Sequence[tuple[str, Sequence[Tile]]]) -> Image.Image:
    """Draws rows below each other, each with a title above it.

    Args:
      rows: title and tiles of each; the query first.

    Returns:
      The drawing; images are resized to equal squares and padded with white.
    """
    columns = max(len(tiles) for _, tiles in rows)
    step, height = _TILE + _GAP, _LINE + _TILE + _GAP
    canvas = Image.new("RGB", (columns * step + 2 * _GAP, len(rows) * height + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (title, tiles) in enumerate(rows):
        top = _GAP + row * height
        pen.text((_GAP, top), title, fill="black")
        for column, tile in enumerate(tiles):
            # A wider gap sets the query apart
            left = _GAP + column * step + (_GAP if column else 0)
            canvas.paste(_framed(tile), (left, top + _LINE))
    return canvas


def _framed(tile: Tile) -> Image.Image:
    inner = _TILE - 2 * _FRAME
    picture = ImageOps.pad(Image.fromarray(tile.picture), (inner, inner), color="white")
    framed = ImageOps.expand(picture, _FRAME, fill=FRAMES[tile.kind])
    if tile.marked:
        pen, centre = ImageDraw.Draw(framed), _TILE - _FRAME - _MARK - 3
        corners = (centre - _MARK, centre - _MARK, centre + _MARK, centre + _MARK)
        pen.ellipse(corners, fill="white", outline="black", width=2)
    return framed


def draw_searches(
    results: Sequence[tuple[str, np.ndarray, Sequence[Hit]]], box: Box | None, searcher: Searcher
) -> Image.Image:
    """Draws a row for each search.

    Args:
      results: title, query uint8 [H, W, 3] and hits of each search.
      box: the part of the query that was searched, in pixels; None for the whole query.
      searcher: of the database.

    Returns:
      The drawing.
    """
    data = searcher.config.data
    pictures = Pictures(searcher.source, data.min_side, data.max_pixels)
    return draw(
        [
            (
                title,
                [
                    Tile(_framed_query(query, box), "query"),
                    *(Tile(pictures.resized(hit.image, SIZES[0]), "found") for hit in hits),
                ],
            )
            for title, query, hits in results
        ]
    )


def _framed_query(picture: np.ndarray, box: Box | None) -> np.ndarray:
    if box is None:
        return picture
    framed = Image.fromarray(picture)
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    corners = max(x1, 0), max(y1, 0), min(x2, width) - 1, min(y2, height) - 1
    # Wide enough to be seen after the image is resized
    pen = ImageDraw.Draw(framed)
    pen.rectangle(corners, outline=FRAMES["query"], width=max(1, max(height, width) // 50))
    return np.asarray(framed)


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
            picture = encoded.to_pil(reduction)
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
      min_side: fewest pixels of a side.
      max_pixels: most pixels of an image.
    """

    def __init__(self, source: ImageSource, min_side: int, max_pixels: int) -> None:
        self._source, self._limits = source, (min_side, max_pixels)
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
            picture = np.asarray(encoded.to_pil(max(fitting, default=1)))
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
