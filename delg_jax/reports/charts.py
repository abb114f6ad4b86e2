"""Charts as coordinates, which the template of the report draws."""

import dataclasses
import math
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 420, 200  # of the drawing area, in units of the picture
_GAPS = 4  # between labelled values on an axis

Points = Sequence[tuple[float, float]]
Limits = tuple[float, float]


@dataclasses.dataclass(frozen=True)
class Chart:
    """One picture with a few curves.

    Attributes:
      title: what is drawn.
      curves: name and path (`d` of an SVG) of each.
      across: labelled values and their x.
      upward: labelled values and their y.
      axis: what goes across.
      marks: `line`, `dots`, or `bars` from zero.
    """

    title: str
    curves: list[tuple[str, str]]
    across: list[tuple[str, float]]
    upward: list[tuple[str, float]]
    axis: str = "step"
    marks: str = "line"


def charts(records: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draws losses, accuracies and activation sparsity of a training run.

    Args:
      records: of `logs/metrics.jsonl`; each has `step` and some metrics.

    Returns:
      A chart for each kind of metric that is finite in more than one record.
    """
    names = sorted({name for record in records for name in record})
    kinds = {"loss": [], "accuracy": [], "sparsity": []}
    for name in names:
        for kind, members in kinds.items():
            if name == kind or name.endswith(f"_{kind}") or name.startswith(f"{kind}_"):
                members.append(name)
    drawn = []
    for kind, members in kinds.items():
        series = {name: _finite_points(records, name) for name in members}
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            corners = [point for points in series.values() for point in points]
            steps = _range([x for x, _ in corners])
            values = _range([y for _, y in corners] + [0.0])
            drawn.append(chart(kind, series, steps, values))
    return drawn


def chart(
    title: str,
    series: Mapping[str, Points],
    across: Limits,
    upward: Limits,
    axis: str = "step",
    marks: str = "line",
) -> Chart:
    """Draws curves within given limits.

    Args:
      title: what is drawn.
      series: points of each curve by its name.
      across: least and largest x.
      upward: least and largest y.
      axis: what goes across.
      marks: `line`, `dots`, or `bars` from zero.

    Returns:
      The chart.
    """

    def place(x: float, y: float) -> str:
        return f"{_share(x, across) * WIDTH:.1f} {(1 - _share(y, upward)) * HEIGHT:.1f}"

    def path(points: Points) -> str:
        """What is drawn of one curve."""
        if marks == "line":
            return "M" + "L".join(place(x, y) for x, y in points) if points else ""
        start = {"dots": lambda x, y: y, "bars": lambda x, y: 0.0}[marks]
        return "".join(f"M{place(x, start(x, y))}L{place(x, y)}" for x, y in points)

    return Chart(
        title,
        [(name, path(points)) for name, points in series.items()],
        [(f"{x:.0f}", _share(x, across) * WIDTH) for x in _ticks(across)],
        [(f"{y:.3g}", (1 - _share(y, upward)) * HEIGHT) for y in _ticks(upward)],
        axis,
        marks,
    )


def _finite_points(records: Sequence[Mapping[str, float]], name: str) -> Points:
    points = [(record["step"], record[name]) for record in records if name in record]
    return [point for point in points if all(map(math.isfinite, point))]


def _range(values: Sequence[float]) -> Limits:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _share(value: float, limits: Limits) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _ticks(limits: Limits) -> list[float]:
    low, high = limits
    return [low + (high - low) * i / _GAPS for i in range(_GAPS + 1)]
