"""Search results drawn as rows of images: the query on the left, its results on the right."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

from delg_jax.features.origins import Box
from delg_jax.reports.thumbnails import SIZES, Pictures
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
    pictures = Pictures(searcher.source, searcher.config.data)
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
