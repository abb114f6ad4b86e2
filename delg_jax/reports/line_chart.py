"""Curves as SVG, drawn with Matplotlib."""

import io
import math
from collections.abc import Mapping, Sequence
from typing import Any

Points = Sequence[tuple[float, float]]

_INCHES = (8.6, 4.6)
# Text stays text, and the same curves give the same bytes
_STYLE = {
    "axes.grid": True,
    "axes.prop_cycle": "cycler('color', ['#1f77b4', '#d62728', '#2ca02c', '#ff7f0e', '#9467bd',"
    " '#8c564b', '#17becf']) + cycler('marker', ['o', 's', '^', 'D', 'v', 'P', 'X'])",
    "font.sans-serif": ["DejaVu Sans"],
    "grid.color": "#dddddd",
    "lines.markersize": 4,
    "svg.fonttype": "none",
    "svg.hashsalt": "delg_jax",
    "text.parse_math": False,
}


def line_chart(
    title: str, across: str, upward: str, curves: Mapping[str, Points], scale: str = "linear"
) -> str:
    """Draws curves; a linear y axis begins at 0 unless a value is negative.

    Args:
      title: of the chart.
      across: label of the x axis, with its unit.
      upward: label of the y axis, with its unit.
      curves: points by the name of the curve; curves without points are ignored.
      scale: `linear`, or `log` for two logarithmic axes that span whole powers of ten.

    Returns:
      The SVG; curve n is the group `curve-n`.

    Raises:
      ValueError: if there is no point, or one that is not finite, or not positive where the axes
        are logarithmic.
    """
    curves = {name: points for name, points in curves.items() if points}
    values = [value for points in curves.values() for point in points for value in point]
    least = 0.0 if scale == "log" else -math.inf
    if not values or not all(least < value < math.inf for value in values):
        rule = "finite and positive" if scale == "log" else "finite"
        raise ValueError(f"`curves` (={dict(curves)}) must have points, all {rule}")

    # Imported here because it takes half a second
    import matplotlib.style
    from matplotlib.backends.backend_svg import FigureCanvasSVG
    from matplotlib.figure import Figure

    with matplotlib.style.context(["default", _STYLE]):  # not the user's own matplotlibrc
        figure = Figure(_INCHES, layout="constrained")
        axes = figure.subplots()
        for number, (name, points) in enumerate(curves.items()):
            axes.plot(*zip(*points, strict=True), label=name, gid=f"curve-{number}", clip_on=False)
        axes.set(title=title, xlabel=across, ylabel=upward)
        _set_scale(axes, scale, values)
        figure.legend(loc="outside right upper", frameon=False)
        drawn = io.StringIO()
        metadata = {"Title": title, "Creator": None, "Date": None, "Type": None, "Format": None}
        FigureCanvasSVG(figure).print_svg(drawn, metadata=metadata)
    # Trailing blanks are not content, and diffs mark them
    return "\n".join(line.rstrip() for line in drawn.getvalue().splitlines()) + "\n"


def _set_scale(axes: Any, scale: str, values: Sequence[float]) -> None:
    """Limits of both axes, and labels such as 10,000 at their ticks."""
    across, upward = values[0::2], values[1::2]
    if scale == "log":
        axes.set(xscale=scale, yscale=scale, xlim=_powers(across), ylim=_powers(upward))
    elif min(upward) >= 0:
        axes.set_ylim(bottom=0)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(lambda value, _: f"{value:,.12g}")


def _powers(values: Sequence[float]) -> tuple[float, float]:
    """The whole powers of ten around positive numbers."""
    low, high = math.floor(math.log10(min(values))), math.ceil(math.log10(max(values)))
    return 10.0**low, 10.0 ** max(high, low + 1)
