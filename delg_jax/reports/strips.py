"""Rankings as strips of pictures: the query on the left, what was found on its right."""

import dataclasses
from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageOps

FRAMES = {
    "query": "#1f77b4",
    "correct": "#2ca02c",
    "wrong": "#d62728",
    "ignored": "#999999",
    "found": "#555555",  # right or wrong, nobody knows
}

_TILE, _FRAME, _GAP, _LINE = 112, 4, 6, 18  # pixels; _LINE is the height of a line of text
_MARK = 7  # half the side of the mark


@dataclasses.dataclass(frozen=True)
class Tile:
    """One picture of a strip.

    Attributes:
      picture: uint8 [H, W, 3].
      kind: of the frame, one of `FRAMES`.
      marked: whether it gets a mark in its corner.
    """

    picture: np.ndarray
    kind: str
    marked: bool = False


def draw(strips: Sequence[tuple[str, Sequence[Tile]]]) -> Image.Image:
    """Draws strips below each other, each with its title above it.

    Args:
      strips: title and tiles of each; the query first.

    Returns:
      The drawing; pictures are shrunk to equal squares, and padded with white where they are none.
    """
    columns = max(len(tiles) for _, tiles in strips)
    step, height = _TILE + _GAP, _LINE + _TILE + _GAP
    canvas = Image.new("RGB", (columns * step + 2 * _GAP, len(strips) * height + _GAP), "white")
    pen = ImageDraw.Draw(canvas)
    for row, (title, tiles) in enumerate(strips):
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
