"""A landmark: the layout of its facade and the surface that the renderer samples."""

import dataclasses

import numpy as np

from delg_jax.data.synthetic.camera import MARGIN, Pyramid
from delg_jax.data.synthetic.materials import (
    FLAT,
    Canvas,
    Colour,
    Layers,
    Style,
    family_style,
    fractal,
    shade,
    wall,
)
from delg_jax.data.synthetic.ornaments import (
    ORNAMENTS,
    Box,
    arcade,
    balcony,
    door,
    ellipse,
    frieze,
    inset,
    opening,
    rectangle,
    window,
)
from delg_jax.data.synthetic.world import generator

SHARE = {  # height of the crown as a share of the facade's
    "flat": 0.08, "gable": 0.2, "stepped": 0.2, "dome": 0.2, "battlement": 0.1, "spire": 0.28,
}  # fmt: skip


def _outline(kind: str, rng: np.random.Generator, box: Box) -> list[np.ndarray]:
    """Returns the polygons of a crown that fills a box."""
    x0, y0, x1, y1 = box
    centre, width, height = (x0 + x1) / 2, x1 - x0, y1 - y0
    if kind == "gable":
        return [np.array([(x0, y1), (centre, y0), (x1, y1)])]
    if kind == "stepped":
        steps = int(rng.integers(3, 6))
        return [
            rectangle((x0 + share * width / 2.6, y1 - height * (step + 1) / steps,
                       x1 - share * width / 2.6, y1))
            for step, share in enumerate(np.arange(steps) / steps)
        ]  # fmt: skip
    if kind == "dome":
        half = width * rng.uniform(0.26, 0.42)
        drum = (centre - half, y0 + 0.6 * height, centre + half, y1)
        cap = (centre - half, y0 + 0.15 * height, centre + half, y1 + 0.3 * height)
        lantern = (centre - 0.05 * width, y0, centre + 0.05 * width, y0 + 0.3 * height)
        return [rectangle(drum), ellipse(cap), opening(lantern, "arch")]
    if kind == "battlement":
        merlons = 2 * int(rng.integers(3, 6)) + 1
        edges = x0 + width * np.arange(merlons + 1) / merlons
        teeth = [rectangle((edges[i], y0, edges[i + 1], y1)) for i in range(0, merlons, 2)]
        return [*teeth, rectangle((x0, y0 + 0.5 * height, x1, y1))]
    if kind == "spire":
        half = width * rng.uniform(0.2, 0.32)
        side = 0.09 * width
        turrets = [
            np.array([(x - side, y1), (x, y0 + rng.uniform(0.4, 0.6) * height), (x + side, y1)])
            for x in (x0 + side, x1 - side)
        ]
        return [np.array([(centre - half, y1), (centre, y0), (centre + half, y1)]), *turrets]
    raised = width * rng.uniform(0.12, 0.3)
    parapet = rectangle((x0, y0 + 0.5 * height, x1, y1))
    return [parapet, rectangle((centre - raised, y0, centre + raised, y1))]


def draw_crown(
    canvas: Canvas, rng: np.random.Generator, box: Box, style: Style, wall_colour: Colour
) -> None:
    """Draws the crown of a style with an ornament of the landmark's own in it.

    Args:
      canvas: where to draw.
      rng: source of the landmark's details.
      box: box that the crown fills, in units.
      style: style of the family.
      wall_colour: RGB of the landmark's wall.
    """
    walled = style.crown in ("flat", "gable", "stepped", "battlement")
    colour = wall_colour if walled else style.roof_colour
    for points in _outline(style.crown, rng, box):
        canvas.fill(points, colour, FLAT, bare=walled)
        canvas.stroke(np.concatenate([points, points[:1]]), 1.1, style.trim_colour, FLAT + 60)
    x0, y0, x1, y1 = box
    size = 0.5 * (y1 - y0) if style.crown != "flat" else 0.75 * (y1 - y0)
    centre = (x0 + x1) / 2 + rng.uniform(-0.04, 0.04) * (x1 - x0)
    place = (centre - size / 2, y1 - 1.1 * size, centre + size / 2, y1 - 0.1 * size)
    ORNAMENTS[rng.integers(len(ORNAMENTS))](canvas, rng, place, style)
    if style.crown in ("flat", "battlement"):
        for x in rng.uniform(x0 + 2, x1 - 2, int(rng.integers(1, 5))):
            urn = (x - 1.3, y0 + 0.05 * (y1 - y0), x + 1.3, y0 + 0.6 * (y1 - y0))
            canvas.fill(ellipse(urn), style.trim_colour, FLAT + 60)


UNITS = 100  # drawing units along the longer side of a facade

# Channels of the surface, all multiplied by SOLID.
COLOUR, SLOPE, RELIEF, GLASS, SOLID = slice(0, 3), slice(3, 5), 5, 6, 7


@dataclasses.dataclass(frozen=True)
class Facade:
    """The plane of a landmark.

    Attributes:
      surface: pyramid of float32 [height, width, 8], channels as named in this module.
      relief: pyramid of its RELIEF channel alone, for shadows.
      solid: bool [height, width], the landmark's silhouette.
      width: in facade pixels.
      height: in facade pixels; the ground is at its lower edge.
    """

    surface: Pyramid
    relief: Pyramid
    solid: np.ndarray
    width: int
    height: int


def build_facade(seed: int, landmark: int, family: int, side: int) -> Facade:
    """Draws a landmark.

    Args:
      seed: seed of the world.
      landmark: id of the landmark.
      family: number of its family.
      side: facade pixels along its longer side, a multiple of `pyramid.MARGIN`.

    Returns:
      The facade, the same for the same arguments.
    """
    style = family_style(seed, family)
    rng = generator(seed, "facade", landmark)
    aspect = style.aspect * rng.uniform(0.92, 1.08)
    sides = np.array([side * min(1.0, aspect), side / max(1.0, aspect)])
    width, height = (np.round(sides / MARGIN) * MARGIN).astype(int).tolist()
    unit = side / UNITS
    canvas = Canvas((width, height), unit)
    _draw(canvas, rng, (width / unit, height / unit), style)
    surface = _surface(canvas.layers(), rng, style, unit)
    relief = Pyramid(surface[..., RELIEF : RELIEF + 1])
    return Facade(Pyramid(surface), relief, surface[..., SOLID] > 0.5, width, height)


def _draw(
    canvas: Canvas, rng: np.random.Generator, size: tuple[float, float], style: Style
) -> None:
    width, height = size
    wall_colour = shade(style.wall_colour, rng.uniform(0.92, 1.08))
    top = SHARE[style.crown] * height * rng.uniform(0.85, 1.15)
    canvas.fill(rectangle((0, top, width, height)), wall_colour, FLAT, bare=True)
    draw_crown(canvas, rng, (0, 0, width, top), style, wall_colour)
    ground = height - rng.uniform(0.22, 0.29) * height
    floors = _spread(rng, top, ground, style.floors - 1)
    columns = _spread(rng, 2.5, width - 2.5, style.columns)
    bands = _draw_bands(canvas, rng, floors, width, style)
    _draw_pilasters(canvas, rng, columns, (top, ground), style, wall_colour)
    _draw_cells(canvas, rng, floors + bands, columns, style)
    _draw_ground_floor(canvas, rng, (2.5, ground, width - 2.5, height), style)


def _spread(rng: np.random.Generator, low: float, high: float, count: int) -> np.ndarray:
    """Returns `count` + 1 edges from low to high at uneven distances."""
    gaps = rng.uniform(0.75, 1.3, count)
    return low + (high - low) * np.concatenate([[0.0], np.cumsum(gaps) / gaps.sum()])


def _draw_bands(
    canvas: Canvas, rng: np.random.Generator, floors: np.ndarray, width: float, style: Style
) -> np.ndarray:
    """Draws cornices and friezes at the upper edge of floors; returns their heights."""
    lettered = rng.random(len(floors)) < 0.3
    lettered[rng.integers(len(floors))] = True
    heights = np.where(lettered, rng.uniform(5.0, 6.5, len(floors)), 1.8)
    for y, height, letters in zip(floors, heights, lettered, strict=True):
        if letters:
            frieze(canvas, rng, (1.5, y, width - 1.5, y + height), style)
        canvas.fill(rectangle((0, y - 1.2, width, y + 0.6)), style.trim_colour, FLAT + 110)
    return heights


def _draw_pilasters(
    canvas: Canvas,
    rng: np.random.Generator,
    columns: np.ndarray,
    span: tuple[float, float],
    style: Style,
    wall_colour: Colour,
) -> None:
    half = rng.uniform(0.8, 1.6)
    present = rng.random(len(columns)) < rng.choice([0.0, 0.5, 1.0])
    colour = style.trim_colour if rng.random() < 0.6 else shade(wall_colour, 1.15)
    for x in columns[present]:
        canvas.fill(rectangle((x - half, span[0], x + half, span[1])), colour, FLAT + 60)
        for y in span:
            canvas.fill(
                rectangle((x - 1.6 * half, y - 1, x + 1.6 * half, y + 1)), colour, FLAT + 90
            )


def _draw_cells(
    canvas: Canvas,
    rng: np.random.Generator,
    floors: np.ndarray,
    columns: np.ndarray,
    style: Style,
) -> None:
    """Fills the grid of upper floors: windows, one large ornament and several small ones."""
    rows, across = len(floors) - 1, len(columns) - 1
    free = np.ones((rows, across), bool)
    span = (min(2, rows), min(2, across))
    row, column = rng.integers(rows - span[0] + 1), rng.integers(across - span[1] + 1)
    free[row : row + span[0], column : column + span[1]] = False
    place = (columns[column], floors[row], columns[column + span[1]], floors[row + span[0]] - 2)
    ornaments = iter(rng.permutation(len(ORNAMENTS)).tolist() * 4)
    ORNAMENTS[next(ornaments)](canvas, rng, inset(place, 0.08), style)
    small = rng.permutation(np.argwhere(free))[: max(2, round(0.35 * free.sum()))]
    panes = [(int(rng.integers(1, 4)), int(rng.integers(1, 4))) for _ in range(rows)]
    for row, column in np.argwhere(free):
        cell: Box = (columns[column], floors[row], columns[column + 1], floors[row + 1] - 2.2)
        if (small == (row, column)).all(axis=1).any():
            ORNAMENTS[next(ornaments)](canvas, rng, inset(cell, 0.14), style)
        elif rng.random() < 0.9:
            for part in _split(cell):
                window(canvas, rng, part, style, panes[row])
            if rng.random() < 0.15:
                balcony(canvas, cell, style)


def _split(cell: Box) -> list[Box]:
    """Splits a wide cell into parts about as wide as high, one for each window."""
    x0, y0, x1, y1 = cell
    edges = np.linspace(x0, x1, max(1, round((x1 - x0) / (y1 - y0))) + 1)
    return [(left, y0, right, y1) for left, right in zip(edges[:-1], edges[1:], strict=True)]


def _draw_ground_floor(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    x0, y0, x1, y1 = box
    bays = _spread(rng, x0, x1, max(2, style.columns - 1))
    portal = int(rng.integers(len(bays) - 1))
    canvas.fill(rectangle((0, y1 - 2.5, x1 + 2.5, y1)), shade(style.trim_colour, 0.8), FLAT + 60)
    for bay in range(len(bays) - 1):
        cell = (bays[bay] + 0.8, y0 + 3, bays[bay + 1] - 0.8, y1)
        kind = rng.random()
        if bay == portal or kind < 0.15:
            door(canvas, rng, cell, style)
        elif kind < 0.65:
            arcade(canvas, rng, cell, style)
        else:
            raised = (cell[0], cell[1], cell[2], y1 - 3)
            ORNAMENTS[rng.integers(len(ORNAMENTS))](canvas, rng, inset(raised, 0.1), style)


def _surface(layers: Layers, rng: np.random.Generator, style: Style, unit: float) -> np.ndarray:
    """Merges drawing and wall texture into the channels that the renderer samples."""
    shape = layers.relief.shape
    tone, joints = wall(rng, style.wall, shape, style.course * unit)
    worn = 1 + 0.1 * fractal(rng, shape, 20, 2)
    colour = layers.colour * (layers.bare * tone + (1 - layers.bare) * worn)[..., None]
    relief = layers.relief + layers.bare * joints
    down, right = np.gradient(relief)
    stacked = np.dstack([colour, right, down, relief, layers.glass, np.ones(shape)])
    return (stacked * layers.solid[..., None]).astype(np.float32)
