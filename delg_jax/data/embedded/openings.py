"""Windows, doors and balconies."""

import numpy as np

from delg_jax.data.embedded.canvas import FLAT, Canvas
from delg_jax.data.embedded.shapes import Box, inset, opening, rectangle
from delg_jax.data.embedded.style import Style, shade


def _narrow(box: Box, width: float, height: float) -> Box:
    x0, y0, x1, y1 = box
    centre, half = (x0 + x1) / 2, width * (x1 - x0) / 2
    return (centre - half, y1 - height * (y1 - y0), centre + half, y1)


def window(
    canvas: Canvas, rng: np.random.Generator, box: Box, style: Style, panes: tuple[int, int]
) -> None:
    """Draws a window, now and then with shutters, a lowered blind or flowers.

    Args:
      canvas: where to draw.
      rng: source of the window's own details.
      box: its cell of the facade.
      style: style of the family.
      panes: number of panes (across, down).
    """
    outer = _narrow(inset(box, 0.1), rng.uniform(0.5, 0.8), rng.uniform(0.8, 1.0))
    x0, y0, x1, y1 = outer
    frame = 0.11 * (x1 - x0)
    canvas.fill(opening(outer, style.head), style.trim_colour, FLAT + 45)
    pane = (x0 + frame, y0 + frame, x1 - frame, y1 - frame)
    tint = shade(style.glass_colour, rng.uniform(0.6, 1.5))
    canvas.fill(opening(pane, style.head), tint, FLAT - 80, glass=1.0)
    px0, py0, px1, py1 = pane
    bar = 0.06 * (x1 - x0)
    for column in range(1, panes[0]):
        x = px0 + (px1 - px0) * column / panes[0]
        canvas.stroke(np.array([(x, py0), (x, py1)]), bar, style.trim_colour, FLAT - 50)
    for row in range(1, panes[1]):
        y = py1 - (py1 - py0) * 0.75 * row / panes[1]
        canvas.stroke(np.array([(px0, y), (px1, y)]), bar, style.trim_colour, FLAT - 50)
    extra = rng.random()
    if extra < 0.12 and style.head == "square":
        for left, right in ((2 * x0 - px0 - 0.3 * (x1 - x0), x0), (x1, 1.3 * x1 - 0.3 * x0)):
            canvas.fill(rectangle((left, y0, right, y1)), style.accent_colour, FLAT + 50)
    elif extra < 0.24:
        drop = py0 + rng.uniform(0.3, 0.7) * (py1 - py0)
        blind = rectangle((px0, py0 + frame, px1, drop))
        canvas.fill(blind, shade(style.accent_colour, 1.4), FLAT - 60)
    elif extra < 0.32:
        flowers = (x0 - frame, y1 - frame, x1 + frame, y1 + 1.6 * frame)
        canvas.fill(rectangle(flowers), (70, 110, 50), FLAT + 80)
    canvas.fill(
        rectangle((x0 - frame, y1 - 0.6 * frame, x1 + frame, y1 + 0.3 * frame)),
        style.trim_colour,
        FLAT + 75,
    )


def balcony(canvas: Canvas, box: Box, style: Style) -> None:
    """Draws a balustrade across the lower third of a cell."""
    x0, y0, x1, y1 = box
    top = y1 - 0.32 * (y1 - y0)
    canvas.fill(rectangle((x0, y1 - 1.2, x1, y1)), shade(style.trim_colour, 0.9), FLAT + 120)
    for x in np.arange(x0 + 0.6, x1, 1.6):
        canvas.stroke(np.array([(x, top), (x, y1)]), 0.6, style.trim_colour, FLAT + 100)
    canvas.stroke(np.array([(x0, top), (x1, top)]), 0.9, style.trim_colour, FLAT + 125)


def door(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a portal: nested frames, leaves with panels and a lit or dark head."""
    outer = _narrow(box, rng.uniform(0.62, 0.9), rng.uniform(0.75, 0.95))
    head = style.head if style.head != "round" else "arch"
    steps = int(rng.integers(1, 4))
    for step in range(steps):
        x0, y0, x1, y1 = outer
        colour = shade(style.trim_colour, 1.0 - 0.2 * step)
        canvas.fill(opening(outer, head), colour, FLAT + 70 - 45 * step)
        gap = 0.09 * (x1 - x0)
        outer = (x0 + gap, y0 + gap, x1 - gap, y1)
    x0, y0, x1, y1 = outer
    leaf = shade(style.accent_colour, rng.uniform(0.6, 1.1))
    canvas.fill(opening(outer, head), leaf, FLAT - 70)
    lintel = y0 + rng.uniform(0.3, 0.45) * (y1 - y0)
    if rng.random() < 0.6:
        pane = opening(outer, head)
        pane[:, 1] = np.minimum(pane[:, 1], lintel)
        canvas.fill(pane, style.glass_colour, FLAT - 75, glass=0.8)
    leaves, panels = int(rng.integers(1, 3)), int(rng.integers(2, 5))
    for column in range(leaves):
        for row in range(panels):
            panel = (
                x0 + (x1 - x0) * column / leaves,
                lintel + (y1 - lintel) * row / panels,
                x0 + (x1 - x0) * (column + 1) / leaves,
                lintel + (y1 - lintel) * (row + 1) / panels,
            )
            canvas.fill(rectangle(inset(panel, 0.18)), shade(leaf, 0.7), FLAT - 95)


def arcade(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a shop front or an arch of an arcade, with an awning now and then."""
    inner = _narrow(box, rng.uniform(0.75, 0.92), rng.uniform(0.7, 0.9))
    head = "arch" if style.head in ("arch", "round", "pointed") else "square"
    canvas.fill(opening(inset(inner, -0.08), head), style.trim_colour, FLAT + 40)
    canvas.fill(opening(inner, head), shade(style.glass_colour, 0.7), FLAT - 90, glass=0.6)
    x0, y0, x1, y1 = inner
    if rng.random() < 0.4:
        stripes = int(rng.integers(3, 7))
        for stripe in range(stripes):
            left = x0 + (x1 - x0) * stripe / stripes
            band = (left, y0, left + (x1 - x0) / stripes, y0 + 0.3 * (y1 - y0))
            colour = style.accent_colour if stripe % 2 else (235, 230, 215)
            canvas.fill(rectangle(band), colour, FLAT + 100)
