"""Draws two images side by side, with a line for each inlier match."""

import colorsys
import pathlib

import numpy as np
from PIL import Image, ImageDraw

from delg_jax import workdir
from delg_jax.errors import UserError

FORMATS = {".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG"}

_GAP = 8  # pixels between the pictures
_OUTLIER = (150, 150, 150)  # colour


def check_path(subject: str, path: str | pathlib.Path) -> pathlib.Path:
    """The path of a drawing; a UserError if its extension is not supported."""
    path = pathlib.Path(path)
    if path.suffix.lower() not in FORMATS:
        raise UserError(subject, str(path), f"must end in {', '.join(FORMATS)}")
    return path


def draw(
    pictures: tuple[np.ndarray, np.ndarray],
    locations: tuple[np.ndarray, np.ndarray],
    inlier_mask: np.ndarray,
) -> Image.Image:
    """Draws inliers as coloured lines and other matches as grey dots.

    Args:
      pictures: uint8 [H, W, 3] each.
      locations: float [L, 2] each, (y, x) in pixels, of the matches.
      inlier_mask: bool [L].

    Returns:
      The drawing; both images keep their size.
    """
    (height, left, _), (other, right, _) = (picture.shape for picture in pictures)
    canvas = Image.new("RGB", (left + _GAP + right, max(height, other)), "white")
    offsets = 0, left + _GAP
    for picture, offset in zip(pictures, offsets, strict=True):
        canvas.paste(Image.fromarray(picture), (offset, 0))
    pen = ImageDraw.Draw(canvas)
    ends = [
        [(x + offset, y) for y, x in side.tolist()]
        for side, offset in zip(locations, offsets, strict=True)
    ]
    radius = max(1, min(canvas.size) // 200)
    for outlier in np.flatnonzero(~inlier_mask):
        for side in ends:
            _dot(pen, side[outlier], radius, _OUTLIER)
    for inlier in np.flatnonzero(inlier_mask):
        start, end = (side[inlier] for side in ends)
        colour = _colour(start[1] / max(height, 1))
        pen.line([start, end], fill=colour, width=1)
        for point in (start, end):
            _dot(pen, point, radius, colour)
    return canvas


def save(drawing: Image.Image, path: pathlib.Path) -> None:
    """Writes a drawing atomically; the extension of the path decides the format."""
    try:
        with workdir.replacing(path) as temporary:
            drawing.save(temporary, format=FORMATS[path.suffix.lower()])
    except OSError as error:
        raise UserError("drawing", str(path), f"cannot be written ({error.strerror})") from error


def _dot(
    pen: ImageDraw.ImageDraw, centre: tuple[float, float], radius: int, colour: tuple[int, int, int]
) -> None:
    x, y = centre
    pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)


def _colour(height: float) -> tuple[int, int, int]:
    """A hue by the height in the first image, so that neighbouring lines differ."""
    red, green, blue = colorsys.hsv_to_rgb(0.9 * min(max(height, 0.0), 1.0), 1.0, 0.9)
    return round(255 * red), round(255 * green), round(255 * blue)
