"""What searches found, as strips of pictures: the query with its box, then the results."""

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from delg_jax.evaluation.searcher import Hit, Searcher
from delg_jax.features.extraction import Box
from delg_jax.reports import strips
from delg_jax.reports.pictures import SIZES, Pictures
from delg_jax.reports.strips import Tile


def draw(
    results: Sequence[tuple[str, np.ndarray, Sequence[Hit]]], box: Box | None, searcher: Searcher
) -> Image.Image:
    """Draws a strip for each search.

    Args:
      results: title, query uint8 [H, W, 3] and hits of each search.
      box: that was looked for, in pixels; None for the whole query.
      searcher: that found them.

    Returns:
      The drawing.
    """
    pictures = Pictures(searcher.source, searcher.config.data)
    return strips.draw(
        [
            (
                title,
                [
                    Tile(_framed(query, box), "query"),
                    *(Tile(pictures.shrunk(hit.image, SIZES[0]), "found") for hit in hits),
                ],
            )
            for title, query, hits in results
        ]
    )


def _framed(picture: np.ndarray, box: Box | None) -> np.ndarray:
    if box is None:
        return picture
    framed = Image.fromarray(picture)
    height, width = picture.shape[:2]
    x1, y1, x2, y2 = box
    corners = max(x1, 0), max(y1, 0), min(x2, width) - 1, min(y2, height) - 1
    # As wide as can be seen when the picture is shrunk
    pen = ImageDraw.Draw(framed)
    pen.rectangle(corners, outline=strips.FRAMES["query"], width=max(1, max(height, width) // 50))
    return np.asarray(framed)
