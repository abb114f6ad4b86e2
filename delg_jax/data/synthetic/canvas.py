"""The drawing board of a facade: every shape has a colour, a relief and a material."""

import dataclasses

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

SUPERSAMPLE = 2
FLAT = 110  # relief of the bare wall, grey levels; larger stands out

Colour = tuple[int, int, int]


@dataclasses.dataclass(frozen=True)
class Layers:
    """What a canvas holds, at facade pixels.

    Attributes:
      colour: float32 [H, W, 3], 0 to 1.
      relief: float32 [H, W], grey levels.
      glass: float32 [H, W], share of reflecting surface.
      bare: float32 [H, W], share of bare wall, where the wall's texture shows.
      solid: float32 [H, W], 1 on the landmark, 0 outside its silhouette.
    """

    colour: np.ndarray
    relief: np.ndarray
    glass: np.ndarray
    bare: np.ndarray
    solid: np.ndarray


class Canvas:
    """Draws polygons into colour, relief and material at once.

    Args:
      size: (width, height) in facade pixels.
      unit: facade pixels in a drawing unit.
    """

    def __init__(self, size: tuple[int, int], unit: float) -> None:
        board = (size[0] * SUPERSAMPLE, size[1] * SUPERSAMPLE)
        self._scale = unit * SUPERSAMPLE
        # Colour and relief share one image, glass, bare and solid another: two strokes a shape.
        self._surface = Image.new("RGBA", board, (0, 0, 0, FLAT))
        self._material = Image.new("RGB", board, (0, 0, 0))
        self._draw_surface = ImageDraw.Draw(self._surface)
        self._draw_material = ImageDraw.Draw(self._material)

    def fill(
        self,
        points: np.ndarray,
        colour: Colour,
        relief: int,
        glass: float = 0.0,
        bare: bool = False,
    ) -> None:
        """Fills a polygon.

        Args:
          points: corners in units, float [n, 2].
          colour: RGB, 0 to 255.
          relief: grey level, `FLAT` on the wall's surface.
          glass: share of reflecting surface.
          bare: whether the wall's texture shows on it.
        """
        corners = [tuple(point) for point in (np.asarray(points) * self._scale).tolist()]
        self._draw_surface.polygon(corners, fill=(*colour, relief))
        self._draw_material.polygon(corners, fill=(int(255 * glass), 255 * bare, 255))

    def stroke(self, points: np.ndarray, width: float, colour: Colour, relief: int) -> None:
        """Draws a line of `width` units through points, float [n, 2]."""
        corners = [tuple(point) for point in (np.asarray(points) * self._scale).tolist()]
        pixels = max(1, round(width * self._scale))
        self._draw_surface.line(corners, fill=(*colour, relief), width=pixels, joint="curve")
        self._draw_material.line(corners, fill=(0, 0, 255), width=pixels, joint="curve")

    def layers(self) -> Layers:
        """Returns what has been drawn so far."""
        surface = np.asarray(self._surface.reduce(SUPERSAMPLE), np.float32)
        material = np.asarray(self._material.reduce(SUPERSAMPLE), np.float32) / 255
        relief = self._surface.getchannel("A").reduce(SUPERSAMPLE)
        soft = relief.filter(ImageFilter.GaussianBlur(0.5))  # so that edges catch the light
        return Layers(
            colour=surface[..., :3] / 255,
            relief=np.asarray(soft, np.float32),
            glass=material[..., 0],
            bare=material[..., 1],
            solid=material[..., 2],
        )
