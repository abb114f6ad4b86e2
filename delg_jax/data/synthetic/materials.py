"""Walls as arrays: tone and relief of brick, stone, plaster, boards and panels."""

import colorsys
import dataclasses
from collections.abc import Callable

import numpy as np
from PIL import Image, ImageDraw, ImageFilter

from delg_jax.data.synthetic.world import generator

Wall = tuple[np.ndarray, np.ndarray]  # tone (about 1) and relief (grey levels), each [H, W]
SUPERSAMPLE = 2
FLAT = 110  # relief of the bare wall, grey levels; larger stands out

Colour = tuple[int, int, int]


def noise(rng: np.random.Generator, shape: tuple[int, int], cells: float) -> np.ndarray:
    """Returns smooth noise in about [-1, 1].

    Args:
      rng: source of the draws.
      shape: (H, W) in pixels.
      cells: number of independent values along the longer side.

    Returns:
      float32 [H, W].
    """
    height, width = shape
    step = max(shape) / cells
    grid_shape = (int(np.ceil(height / step)) + 1, int(np.ceil(width / step)) + 1)
    grid = rng.uniform(-1, 1, grid_shape).astype(np.float32)
    box = (0.5, 0.5, 0.5 + width / step, 0.5 + height / step)
    return np.asarray(Image.fromarray(grid).resize((width, height), Image.Resampling.BICUBIC, box))


def fractal(
    rng: np.random.Generator, shape: tuple[int, int], cells: float, octaves: int
) -> np.ndarray:
    """Returns a sum of `octaves` noises, each twice as fine and half as strong, float32 [H, W]."""
    total = np.zeros(shape, np.float32)
    for octave in range(octaves):
        total += noise(rng, shape, cells * 2**octave) / 2**octave
    return total / (2 - 2.0 ** (1 - octaves))


def masonry(
    rng: np.random.Generator,
    shape: tuple[int, int],
    course: float,
    length: float,
    irregular: float,
    contrast: float,
) -> Wall:
    """Returns courses of blocks with joints.

    Args:
      rng: source of the draws.
      shape: (H, W) in pixels.
      course: height of a course in pixels.
      length: mean length of a block in pixels.
      irregular: spread of the lengths, 0 to 1; 0 gives a running bond.
      contrast: spread of the tones of the blocks.

    Returns:
      Tone and relief, float32 [H, W] each.
    """
    height, width = shape
    row = (np.arange(height) / course).astype(int)
    rows = row[-1] + 1
    blocks = int(np.ceil(width / length / (1 - 0.6 * irregular))) + 2
    lengths = length * (1 + irregular * rng.uniform(-0.6, 0.6, (rows, blocks)))
    first = np.where(np.arange(rows) % 2, 0.5, 1.0) * lengths[:, 0]
    joints = np.cumsum(np.concatenate([first[:, None], lengths[:, 1:]], axis=1), axis=1)
    x = np.arange(width)
    block = np.stack([np.searchsorted(joints[r], x, side="right") for r in range(rows)])
    tones = 1 + contrast * rng.uniform(-1, 1, (rows, blocks + 1))
    tone = np.take_along_axis(tones, block, axis=1)[row]
    edge = np.zeros((rows, width), bool)
    edge[:, 1:] = block[:, 1:] != block[:, :-1]
    joint = edge[row]
    joint[1:][row[1:] != row[:-1]] = True
    return (
        np.where(joint, 0.72, tone).astype(np.float32),
        np.where(joint, -14.0, 0.0).astype(np.float32),
    )


def _brick(rng: np.random.Generator, shape: tuple[int, int], course: float) -> Wall:
    return masonry(rng, shape, course, 2.4 * course, irregular=0.0, contrast=0.16)


def _stone(rng: np.random.Generator, shape: tuple[int, int], course: float) -> Wall:
    return masonry(rng, shape, 2.2 * course, 4.5 * course, irregular=0.9, contrast=0.14)


def _plaster(rng: np.random.Generator, shape: tuple[int, int], course: float) -> Wall:
    cells = max(shape) / (2 * course)
    return 1 + 0.1 * fractal(rng, shape, cells, 3), 3 * noise(rng, shape, 2 * cells)


def _boards(rng: np.random.Generator, shape: tuple[int, int], course: float) -> Wall:
    tone, relief = masonry(rng, shape[::-1], 1.6 * course, 30 * course, 0.5, contrast=0.13)
    return tone.T, relief.T


def _panels(rng: np.random.Generator, shape: tuple[int, int], course: float) -> Wall:
    return masonry(rng, shape, 5 * course, 8 * course, irregular=0.2, contrast=0.07)


WALLS: dict[str, Callable[[np.random.Generator, tuple[int, int], float], Wall]] = {
    "brick": _brick,
    "stone": _stone,
    "plaster": _plaster,
    "boards": _boards,
    "panels": _panels,
}


def wall(rng: np.random.Generator, kind: str, shape: tuple[int, int], course: float) -> Wall:
    """Returns a weathered wall.

    Args:
      rng: source of the draws.
      kind: a key of `WALLS`.
      shape: (H, W) in pixels.
      course: height of a brick in pixels; other kinds scale with it.

    Returns:
      Tone, to multiply a colour by, and relief in grey levels, float32 [H, W] each.
    """
    tone, relief = WALLS[kind](rng, shape, course)
    stains = 1 + 0.16 * fractal(rng, shape, 4, 3)
    streaks = 1 + 0.07 * noise(rng, (1, shape[1]), 40)
    return tone * stains * streaks, relief


HEADS = ("square", "arch", "pointed", "square", "arch")
CROWNS = ("flat", "gable", "stepped", "dome", "battlement", "spire")

# Hue range, saturation range and value range of plausible wall materials.
_MATERIALS = (
    ((0.00, 0.05), (0.35, 0.60), (0.50, 0.75)),  # red brick
    ((0.07, 0.13), (0.12, 0.35), (0.65, 0.90)),  # sandstone
    ((0.08, 0.12), (0.30, 0.55), (0.70, 0.92)),  # ochre
    ((0.50, 0.65), (0.03, 0.12), (0.50, 0.85)),  # granite
    ((0.20, 0.45), (0.08, 0.25), (0.55, 0.80)),  # green render
    ((0.55, 0.62), (0.15, 0.35), (0.60, 0.85)),  # blue render
    ((0.95, 1.00), (0.12, 0.30), (0.70, 0.90)),  # rose render
    ((0.05, 0.10), (0.25, 0.45), (0.30, 0.48)),  # dark wood or slate
)


@dataclasses.dataclass(frozen=True)
class Style:
    """Parameters of a family of landmarks.

    Attributes:
      wall: kind of wall, a key of `texture.WALLS`.
      course: height of a brick in units (the longer side of a facade is 100).
      wall_colour: RGB.
      trim_colour: RGB of cornices, frames and carvings.
      roof_colour: RGB.
      accent_colour: RGB of doors, signs and mosaics.
      glass_colour: RGB.
      head: form of the windows' upper end.
      crown: form of the upper end of the facade.
      aspect: width / height.
      floors: number of floors.
      columns: number of window columns.
    """

    wall: str
    course: float
    wall_colour: Colour
    trim_colour: Colour
    roof_colour: Colour
    accent_colour: Colour
    glass_colour: Colour
    head: str
    crown: str
    aspect: float
    floors: int
    columns: int


def shade(colour: Colour, factor: float) -> Colour:
    """Returns the colour made lighter (factor above 1) or darker."""
    red, green, blue = (min(int(channel * factor), 255) for channel in colour)
    return (red, green, blue)


def hsv(hue: float, saturation: float, value: float) -> Colour:
    """Returns the RGB colour, 0 to 255, of hue, saturation and value in [0, 1]."""
    red, green, blue = colorsys.hsv_to_rgb(hue % 1.0, saturation, value)
    return (int(255 * red), int(255 * green), int(255 * blue))


def family_style(seed: int, family: int) -> Style:
    """Returns the style of a family.

    Args:
      seed: seed of the world.
      family: number of the family.

    Returns:
      Its style, the same for all its landmarks.
    """
    rng = generator(seed, "style", family)
    hue, saturation, value = _MATERIALS[rng.integers(len(_MATERIALS))]
    wall_colour = hsv(rng.uniform(*hue), rng.uniform(*saturation), rng.uniform(*value))
    pale = rng.random() < 0.6
    tower = rng.random() < 0.35
    return Style(
        wall=sorted(WALLS)[rng.integers(len(WALLS))],
        course=rng.uniform(1.5, 2.4),
        wall_colour=wall_colour,
        trim_colour=hsv(0.11, rng.uniform(0.03, 0.2), rng.uniform(0.82, 0.97))
        if pale
        else shade(wall_colour, rng.uniform(0.5, 0.7)),
        roof_colour=hsv(*((0.03, 0.5, 0.5), (0.6, 0.1, 0.4), (0.42, 0.3, 0.55))[rng.integers(3)]),
        accent_colour=hsv(rng.random(), rng.uniform(0.4, 0.75), rng.uniform(0.35, 0.65)),
        glass_colour=hsv(rng.uniform(0.5, 0.65), rng.uniform(0.1, 0.35), rng.uniform(0.18, 0.4)),
        head=HEADS[rng.integers(len(HEADS))],
        crown=CROWNS[rng.integers(len(CROWNS))],
        aspect=rng.uniform(0.42, 0.58) if tower else rng.uniform(0.75, 1.35),
        floors=int(rng.integers(4, 7)) if tower else int(rng.integers(3, 5)),
        columns=int(rng.integers(2, 4)) if tower else int(rng.integers(4, 7)),
    )


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
