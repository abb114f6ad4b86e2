"""Curves over two plain axes as an SVG."""

import math
from collections.abc import Mapping, Sequence

from delg_jax.reports.plot import Axis, Points, picture

_GAPS = 6  # between labelled numbers of an axis, at most
_STEPS = (1, 2, 2.5, 5, 10)  # between them, times a power of ten


def line_plot(title: str, across: str, upward: str, curves: Mapping[str, Points]) -> str:
    """Draws curves; the axis upward begins at 0 unless a number is below.

    Args:
      title: what is drawn.
      across: what the first number of a point is, with its unit.
      upward: what the second one is.
      curves: points by the name of the curve; a curve of no points is left out.

    Returns:
      The SVG.

    Raises:
      ValueError: if there is no point, or one that is not finite.
    """
    curves = {name: points for name, points in curves.items() if points}
    corners = [point for points in curves.values() for point in points]
    if not corners or not all(math.isfinite(value) for corner in corners for value in corner):
        raise ValueError(f"`curves` (={dict(curves)}) must have points, all finite")
    x, y = zip(*corners, strict=True)
    return picture(title, _axis(across, x), _axis(upward, (0.0, *y)), curves)


def _axis(name: str, values: Sequence[float]) -> Axis:
    """From the round number below the least value to the one above the largest."""
    span = (max(values) - min(values)) or 1.0
    power = 10.0 ** math.floor(math.log10(span / _GAPS))
    step = next(step for times in _STEPS if (step := times * power) * _GAPS >= span)
    first = math.floor(min(values) / step)
    last = max(math.ceil(max(values) / step), first + 1)
    ticks = [round(number * step, 12) for number in range(first, last + 1)]
    return Axis(name, ticks, lambda value: (value - ticks[0]) / (ticks[-1] - ticks[0]))
