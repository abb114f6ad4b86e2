"""Carvings, clocks, signs and mosaics: the parts that tell one landmark of a family from another.

Every ornament fills a box of a canvas and draws its own details from the generator, so two of a
kind differ in their parts (petals, hands, glyphs, tiles).
"""

from collections.abc import Callable

import numpy as np

from delg_jax.data.synthetic.materials import FLAT, Canvas, Style, hsv, shade

Box = tuple[float, float, float, float]  # x0, y0, x1, y1


def rectangle(box: Box) -> np.ndarray:
    """Returns the four corners of a box, float [4, 2]."""
    x0, y0, x1, y1 = box
    return np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)])


def inset(box: Box, margin: float) -> Box:
    """Returns the box shrunk by a share of its smaller side on every side."""
    x0, y0, x1, y1 = box
    gap = margin * min(x1 - x0, y1 - y0)
    return (x0 + gap, y0 + gap, x1 - gap, y1 - gap)


def square(box: Box) -> Box:
    """Returns the largest centred square within a box."""
    x0, y0, x1, y1 = box
    half = min(x1 - x0, y1 - y0) / 2
    x, y = (x0 + x1) / 2, (y0 + y1) / 2
    return (x - half, y - half, x + half, y + half)


def regular(box: Box, count: int, phase: float = 0.0, start: float = 0.0) -> np.ndarray:
    """Returns a regular polygon (an ellipse, for a large count) inscribed in a box.

    Args:
      box: its bounding box.
      count: number of corners.
      phase: turn in radians.
      start: radius of every second corner, as a share; 0 means a convex polygon, else a star.

    Returns:
      Corners, float [count, 2], or [2 * count, 2] for a star.
    """
    x0, y0, x1, y1 = box
    corners = count if start == 0 else 2 * count
    angle = phase - np.pi / 2 + 2 * np.pi * np.arange(corners) / corners
    radius = np.ones(corners)
    if start:
        radius[1::2] = start
    x = (x0 + x1) / 2 + radius * np.cos(angle) * (x1 - x0) / 2
    y = (y0 + y1) / 2 + radius * np.sin(angle) * (y1 - y0) / 2
    return np.stack([x, y], axis=-1)


def ellipse(box: Box) -> np.ndarray:
    """Returns the ellipse inscribed in a box as a polygon, float [28, 2]."""
    return regular(box, 28)


def opening(box: Box, head: str) -> np.ndarray:
    """Returns the outline of a window or a door that fills a box.

    Args:
      box: bounding box.
      head: form of the upper end: `square`, `arch`, `pointed` or `round` (a whole ellipse).

    Returns:
      Corners, float [n, 2].
    """
    x0, y0, x1, y1 = box
    width = x1 - x0
    if head == "square":
        return rectangle(box)
    if head == "round":
        return ellipse(square(box))
    angle = np.linspace(0, np.pi, 15)
    rise = min(width / 2, 0.45 * (y1 - y0))
    if head == "pointed":
        rise = min(width * 0.85, 0.5 * (y1 - y0))
        profile = np.sin(angle) ** 0.8 * (0.55 + 0.45 * (1 - np.abs(np.cos(angle))))
    else:
        profile = np.sin(angle)
    x = (x0 + x1) / 2 + np.cos(angle) * width / 2
    y = y0 + rise * (1 - profile)
    return np.concatenate([np.stack([x, y], axis=-1), [(x0, y1), (x1, y1)]])


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


Ornament = Callable[[Canvas, np.random.Generator, Box, Style], None]


def rosette(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a rose window: a ring of petals around a star."""
    box = square(box)
    canvas.fill(ellipse(box), style.trim_colour, FLAT + 70)
    canvas.fill(ellipse(inset(box, 0.07)), shade(style.trim_colour, 0.6), FLAT - 40)
    petals = int(rng.integers(5, 13))
    reach = rng.uniform(0.26, 0.31)
    size = min(0.19, 2.3 * reach / petals)
    tints = [style.glass_colour, hsv(rng.random(), 0.65, 0.6), hsv(rng.random(), 0.5, 0.75)]
    order = rng.integers(0, 3, petals)
    x0, y0, x1, y1 = box
    side = x1 - x0
    for petal in range(petals):
        angle = 2 * np.pi * petal / petals
        x = (x0 + x1) / 2 + 1.05 * reach * side * np.sin(angle)
        y = (y0 + y1) / 2 - 1.05 * reach * side * np.cos(angle)
        half = size * side * 0.62
        canvas.fill(
            ellipse((x - half, y - half, x + half, y + half)), tints[order[petal]], FLAT - 60, 0.3
        )
    points = int(rng.integers(4, 8))
    star = regular(inset(box, 0.36), points, rng.uniform(0, 1), rng.uniform(0.35, 0.6))
    canvas.fill(star, tints[1], FLAT + 60)


def clock(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a clock: a dial, hour marks and two hands."""
    box = square(box)
    dark = rng.random() < 0.4
    dial = hsv(0.62, 0.4, 0.25) if dark else hsv(0.12, 0.08, 0.95)
    ink = hsv(0.12, 0.6, 0.85) if dark else hsv(0.0, 0.1, 0.12)
    if rng.random() < 0.5:
        canvas.fill(regular(box, int(rng.integers(4, 9)), rng.uniform(0, 1)), ink, FLAT + 30)
        box = inset(box, 0.08)
    canvas.fill(ellipse(box), style.trim_colour, FLAT + 90)
    canvas.fill(ellipse(inset(box, 0.09)), dial, FLAT + 40)
    x0, y0, x1, y1 = box
    centre = np.array([(x0 + x1) / 2, (y0 + y1) / 2])
    side = x1 - x0
    marks = int(rng.choice([4, 6, 8, 12]))
    hands = [(rng.uniform(0, 2 * np.pi), 0.22), (rng.uniform(0, 2 * np.pi), 0.33)]
    for mark in range(marks):
        angle = 2 * np.pi * mark / marks
        ray = np.array([np.sin(angle), -np.cos(angle)]) * side
        canvas.stroke(centre + ray * np.array([[0.31], [0.38]]), 0.045 * side, ink, FLAT + 50)
    for angle, length in hands:
        ray = np.array([np.sin(angle), -np.cos(angle)]) * side * length
        canvas.stroke(np.stack([centre - 0.2 * ray, centre + ray]), 0.055 * side, ink, FLAT + 70)


def glyphs(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a carved sign: a bitmap of raised and sunken squares, often mirrored."""
    ground, mark = style.trim_colour, shade(style.trim_colour, rng.uniform(0.35, 0.55))
    if rng.random() < 0.4:
        ground, mark = mark, ground
    canvas.fill(rectangle(box), ground, FLAT + 45)
    x0, y0, x1, y1 = inset(box, 0.09)
    cell = min(min(x1 - x0, y1 - y0) / rng.integers(4, 7), rng.uniform(3.0, 4.5))
    columns, rows = max(1, round((x1 - x0) / cell)), max(1, round((y1 - y0) / cell))
    bits = rng.random((rows, columns)) < rng.uniform(0.35, 0.55)
    if rng.random() < 0.4:
        bits |= bits[:, ::-1]
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    for row, column in np.argwhere(bits):
        left, top = x0 + column * width, y0 + row * height
        canvas.fill(rectangle((left, top, left + width, top + height)), mark, FLAT - 50)


def mosaic(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws painted tiles: squares and triangles of a few colours."""
    hue = rng.random()
    tints = [hsv(hue + shift, rng.uniform(0.35, 0.7), value) for shift, value in
             ((0.0, 0.45), (0.08, 0.8), (0.5, 0.6))] + [style.accent_colour]  # fmt: skip
    canvas.fill(rectangle(box), shade(style.trim_colour, 0.8), FLAT + 30)
    x0, y0, x1, y1 = inset(box, 0.06)
    cell = min(min(x1 - x0, y1 - y0) / rng.integers(3, 6), rng.uniform(3.5, 5.5))
    columns, rows = max(1, round((x1 - x0) / cell)), max(1, round((y1 - y0) / cell))
    width, height = (x1 - x0) / columns, (y1 - y0) / rows
    for row in range(rows):
        for column in range(columns):
            left, top = x0 + column * width, y0 + row * height
            corners = rectangle((left, top, left + width, top + height))
            first, second, turn = rng.integers(4, size=3)
            canvas.fill(corners, tints[first], FLAT + 30)
            if rng.random() < 0.6:
                canvas.fill(np.roll(corners, turn, axis=0)[:3], tints[second], FLAT + 30)


def shield(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a coat of arms: quarters of two colours and a charge in each."""
    x0, y0, x1, y1 = square(box)
    x, y, side = (x0 + x1) / 2, (y0 + y1) / 2, x1 - x0
    half = 0.42 * side
    outline = np.array(
        [(x - half, y0), (x + half, y0), (x + half, y + 0.15 * side), (x, y1),
         (x - half, y + 0.15 * side)]
    )  # fmt: skip
    canvas.fill(outline, style.trim_colour, FLAT + 80)
    hue = rng.random()
    fields = (hsv(hue, 0.65, 0.5), hsv(hue + rng.uniform(0.2, 0.8), 0.5, 0.85))
    swap = int(rng.integers(2))
    for quarter in range(4):
        left, top = x + (quarter % 2 - 1) * 0.35 * side, y0 + (0.07 + quarter // 2 * 0.36) * side
        field = (left, top, left + 0.34 * side, top + 0.35 * side)
        corners = rectangle(field)
        if quarter >= 2:
            corners[3 - quarter % 2, 1] -= 0.2 * side  # the point of the shield
        odd = (quarter + quarter // 2 + swap) % 2
        canvas.fill(corners, fields[odd], FLAT + 60)
        charge = regular(inset(field, 0.2), int(rng.integers(3, 7)), rng.uniform(0, 3), 0.45)
        canvas.fill(charge, fields[1 - odd], FLAT + 100)


def niche(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a statue in a niche: a figure with a raised arm, a staff or a halo."""
    x0, y0, x1, y1 = box
    centre, width, height = (x0 + x1) / 2, min(x1 - x0, 0.7 * (y1 - y0)), y1 - y0

    def place(*points: tuple[float, float]) -> np.ndarray:
        return np.array([(centre + u * width, y0 + v * height) for u, v in points])

    arch = place((-0.4, 1), (-0.4, 0.25), (-0.2, 0.05), (0.2, 0.05), (0.4, 0.25), (0.4, 1))
    canvas.fill(arch, shade(style.wall_colour, rng.uniform(0.35, 0.6)), FLAT - 80)
    stone = hsv(*((0.1, 0.1, 0.9), (0.42, 0.3, 0.5), (0.12, 0.6, 0.75))[rng.integers(3)])
    lean, shoulder = rng.uniform(-0.08, 0.08), rng.uniform(0.12, 0.2)
    hem = rng.uniform(0.15, 0.28)
    robe = place((-hem, 0.92), (-shoulder + lean, 0.4), (shoulder + lean, 0.4), (hem, 0.92))
    canvas.fill(robe, stone, FLAT + 20)
    head = place((lean - 0.1, 0.24), (lean + 0.1, 0.38))
    if rng.random() < 0.4:
        halo = place((lean - 0.18, 0.18), (lean + 0.18, 0.42))
        canvas.fill(ellipse((*halo[0], *halo[1])), hsv(0.13, 0.7, 0.8), FLAT - 20)
    canvas.fill(ellipse((*head[0], *head[1])), stone, FLAT + 30)
    for sign in (-1, 1):
        hand = (lean + sign * rng.uniform(0.1, 0.34), rng.uniform(0.15, 0.7))
        arm = place((lean + sign * shoulder * 0.9, 0.43), hand)
        canvas.stroke(arm, 0.09 * width, stone, FLAT + 30)
        if rng.random() < 0.4:
            staff = place((hand[0], 0.1), (hand[0], 0.92))
            canvas.stroke(staff, 0.05 * width, style.accent_colour, FLAT + 30)
    canvas.fill(rectangle((x0, y1 - 0.08 * height, x1, y1)), style.trim_colour, FLAT + 70)


def knot(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws interlaced stonework: a closed Lissajous curve on a panel."""
    box = square(box)
    canvas.fill(rectangle(box), shade(style.trim_colour, rng.uniform(0.5, 0.75)), FLAT - 20)
    x0, y0, x1, y1 = inset(box, 0.14)
    angle = np.linspace(0, 2 * np.pi, 60)
    across, down = rng.permutation([1, 2, 3, 4])[:2]
    phase = rng.uniform(0.2, 1.3)
    curve = np.stack(
        [
            (x0 + x1) / 2 + np.sin(across * angle + phase) * (x1 - x0) / 2,
            (y0 + y1) / 2 + np.sin(down * angle) * (y1 - y0) / 2,
        ],
        axis=-1,
    )
    canvas.stroke(curve, 0.09 * (x1 - x0), style.trim_colour, FLAT + 70)


ORNAMENTS: tuple[Ornament, ...] = (rosette, clock, glyphs, mosaic, shield, niche, knot)


def frieze(canvas: Canvas, rng: np.random.Generator, box: Box, style: Style) -> None:
    """Draws a band of letters of random strokes, carved or painted, along a wide box."""
    x0, y0, x1, y1 = box
    height = y1 - y0
    painted = rng.random() < 0.4
    ground = style.accent_colour if painted else style.trim_colour
    ink = hsv(0.12, 0.15, 0.95) if painted else shade(style.trim_colour, 0.4)
    canvas.fill(rectangle(box), ground, FLAT + 40)
    advance = height * rng.uniform(0.75, 1.0)
    for letter in range(int((x1 - x0) / advance)):
        if rng.random() < 0.15:
            continue
        left = x0 + (letter + 0.15) * advance
        nodes = rng.integers(0, 3, (int(rng.integers(3, 5)), 2)) / 2
        points = nodes * np.array([0.7 * advance, 0.64 * height]) + np.array(
            [left, y0 + 0.18 * height]
        )
        canvas.stroke(points, 0.16 * height, ink, FLAT - 10)
