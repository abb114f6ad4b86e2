"""Carvings, clocks, signs and mosaics: the parts that tell one landmark of a family from another.

Every ornament fills a box of a canvas and draws its own details from the generator, so two of a
kind differ in their parts (petals, hands, glyphs, tiles).
"""

from collections.abc import Callable

import numpy as np

from delg_jax.data.embedded.canvas import FLAT, Canvas
from delg_jax.data.embedded.shapes import Box, ellipse, inset, rectangle, regular, square
from delg_jax.data.embedded.style import Style, hsv, shade

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
