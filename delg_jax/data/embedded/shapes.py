"""Outlines as point lists in facade units: x to the right, y down."""

import numpy as np

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
