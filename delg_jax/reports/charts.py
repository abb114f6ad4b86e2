"""Training curves as coordinates, which the template of the report draws."""

import dataclasses
from collections.abc import Mapping, Sequence

WIDTH, HEIGHT = 640, 220  # of the drawing area, in units of the picture
_GAPS = 4  # between labelled values on an axis


@dataclasses.dataclass(frozen=True)
class Chart:
    """One picture with a few curves.

    Attributes:
      title: what is drawn.
      curves: name and corner points `x,y x,y ...` of each.
      across: labelled steps and their x.
      upward: labelled values and their y.
    """

    title: str
    curves: list[tuple[str, str]]
    across: list[tuple[str, float]]
    upward: list[tuple[str, float]]


def charts(records: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draws losses and accuracies of a training run.

    Args:
      records: of `logs/metrics.jsonl`; each has `step` and some metrics.

    Returns:
      A chart for each kind of metric that occurs in more than one record.
    """
    names = sorted({name for record in records for name in record})
    kinds = {"loss": [], "accuracy": []}
    for name in names:
        for kind, members in kinds.items():
            if name == kind or name.endswith(f"_{kind}"):
                members.append(name)
    drawn = [_chart(kind, members, records) for kind, members in kinds.items()]
    return [chart for chart in drawn if chart is not None]


def _chart(
    title: str, names: Sequence[str], records: Sequence[Mapping[str, float]]
) -> Chart | None:
    series = {
        name: [(record["step"], record[name]) for record in records if name in record]
        for name in names
    }
    series = {name: points for name, points in series.items() if len(points) > 1}
    if not series:
        return None
    corners = [point for points in series.values() for point in points]
    steps, values = _range([x for x, _ in corners]), _range([y for _, y in corners] + [0.0])

    def place(x: float, y: float) -> str:
        return f"{_share(x, steps) * WIDTH:.1f},{(1 - _share(y, values)) * HEIGHT:.1f}"

    return Chart(
        title,
        [(name, " ".join(place(x, y) for x, y in points)) for name, points in series.items()],
        [(f"{x:.0f}", _share(x, steps) * WIDTH) for x in _ticks(steps)],
        [(f"{y:.3g}", (1 - _share(y, values)) * HEIGHT) for y in _ticks(values)],
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    return (low, high) if high > low else (low, low + 1.0)


def _share(value: float, limits: tuple[float, float]) -> float:
    return (value - limits[0]) / (limits[1] - limits[0])


def _ticks(limits: tuple[float, float]) -> list[float]:
    low, high = limits
    return [low + (high - low) * i / _GAPS for i in range(_GAPS + 1)]
