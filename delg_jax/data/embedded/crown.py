"""The upper end of a facade: the part of its silhouette that stands before the sky."""

import numpy as np

from delg_jax.data.embedded.canvas import FLAT, Canvas, Colour
from delg_jax.data.embedded.ornaments import ORNAMENTS
from delg_jax.data.embedded.shapes import Box, ellipse, opening, rectangle
from delg_jax.data.embedded.style import Style

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
