"""Curves over two logarithmic axes as an SVG."""

import math
from collections.abc import Mapping, Sequence

from delg_jax.reports.plot import Axis, Points, picture


def log_plot(title: str, across: str, upward: str, curves: Mapping[str, Points]) -> str:
    """Draws curves of positive numbers; both axes span whole powers of ten.

    Args:
      title: what is drawn.
      across: what the first number of a point is, with its unit.
      upward: what the second one is.
      curves: points by the name of the curve, all positive; a curve of no points is left out.

    Returns:
      The SVG.

    Raises:
      ValueError: if there is no point, or one that is not positive.
    """
    curves = {name: points for name, points in curves.items() if points}
    corners = [point for points in curves.values() for point in points]
    if not corners or min(map(min, corners)) <= 0:
        raise ValueError(f"`curves` (={dict(curves)}) must have points, all positive")
    axes = [
        _axis(name, values)
        for name, values in zip((across, upward), zip(*corners, strict=True), strict=True)
    ]
    return picture(title, *axes, curves)


def _axis(name: str, values: Sequence[float]) -> Axis:
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    high = max(high, low + 1)
    ticks = [10.0**power for power in range(low, high + 1)]
    return Axis(name, ticks, lambda value: (math.log10(value) - low) / (high - low))
