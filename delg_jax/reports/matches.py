"""A drawing of two pictures side by side, with lines between the matches on one view."""

import colorsys
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

_GAP = 8  # pixels between the pictures
_REJECTED = (150, 150, 150)  # colour of matches that do not fit


def check_path(subject: str, path: str | pathlib.Path) -> pathlib.Path:
    """The path of a drawing; a UserError if its ending names no known format."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(subject, str(path), f"must end in {', '.join(FORMATS)}")
    return path


def draw(
    pictures: tuple[np.ndarray, np.ndarray],
    locations: tuple[np.ndarray, np.ndarray],
    inlier_mask: np.ndarray,
) -> Image.Image:
    """Draws inliers as coloured lines, and other matches as grey dots.

    Args:
      pictures: uint8 [H, W, 3] each.
      locations: float [L, 2] each, (y, x) in pixels, of matches.
      inlier_mask: bool [L].

    Returns:
      The drawing; both pictures in their own size.
    """
    (height, left, _), (other, right, _) = (picture.shape for picture in pictures)
    canvas = Image.new("RGB", (left + _GAP + right, max(height, other)), "white")
    offsets = 0, left + _GAP
    for picture, offset in zip(pictures, offsets, strict=True):
        canvas.paste(Image.fromarray(picture), (offset, 0))
    pen = ImageDraw.Draw(canvas)
    ends = [
        [(x + offset, y) for y, x in places.tolist()]
        for places, offset in zip(locations, offsets, strict=True)
    ]
    radius = max(1, min(canvas.size) // 200)
    for rejected in np.flatnonzero(~inlier_mask):
        for side in ends:
            _dot(pen, side[rejected], radius, _REJECTED)
    for inlier in np.flatnonzero(inlier_mask):
        start, end = (side[inlier] for side in ends)
        colour = _colour(start[1] / max(height, 1))
        pen.line([start, end], fill=colour, width=1)
        for point in (start, end):
            _dot(pen, point, radius, colour)
    return canvas


def save(drawing: Image.Image, path: pathlib.Path) -> None:
    """Writes a drawing, whole or not at all; the format is that of the path's ending."""
    try:
        with artefacts.replacing(path) as temporary:
            drawing.save(temporary, format=FORMATS[path.suffix.lower()])
    except OSError as error:
        raise UserError("drawing", str(path), f"cannot be written ({error.strerror})") from error


def _dot(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: int, colour: tuple[int, int, int]
) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _colour(height: float) -> tuple[int, int, int]:
    """A hue by the height in the first picture, so that neighbouring lines can be told apart."""
    rgb = colorsys.hsv_to_rgb(0.9 * min(max(height, 0.0), 1.0), 1.0, 0.9)
    return tuple(round(255 * value) for value in rgb)
