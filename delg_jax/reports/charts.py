"""Charts: of a run for the report, and as files."""

import dataclasses
import io
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax.data.ground_truth import protocol_sets
from delg_jax.reports.method_results import MethodResult

_LEVELS = 51  # of recall
_PERCENT = (0.0, 100.0)
_DIGITS = 6  # significant digits of a training metric

Limits = tuple[float, float]
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


@dataclasses.dataclass(frozen=True)
class Chart:
    """Curves over the same values of x.

    Attributes:
      title: of the chart.
      x_label: of the x axis, with its unit.
      y_label: of the y axis, with its unit; "" if the title says it.
      x: values in ascending order.
      curves: by name, a value for each of `x`, or None.
      limits: of the y axis.
      marks: `line`, `dots`, or `bars` from zero.
      protocol: of the queries.
      queries: index of the query at each of `x`; None if `x` are not queries.
    """

    title: str
    x_label: str
    y_label: str
    x: Sequence[float]
    curves: Mapping[str, Sequence[float | None]]
    limits: Limits
    marks: str = "line"
    protocol: str | None = None
    queries: Sequence[int] | None = None

    def json(self) -> str:
        """All fields, for the script of the page; curves as pairs, which keep the order."""
        fields = dataclasses.asdict(self) | {"curves": list(self.curves.items())}
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)


def training(records: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Charts of losses, accuracies and activation sparsity of a training run.

    Args:
      records: of `logs/metrics.jsonl`; each has `step` and some metrics.

    Returns:
      A chart for each kind of metric with finite values in more than one record.
    """
    names = sorted({name for record in records for name in record})
    kinds: dict[str, list[str]] = {"loss": [], "accuracy": [], "sparsity": []}
    for name in names:
        for kind, members in kinds.items():
            if name == kind or name.endswith(f"_{kind}") or name.startswith(f"{kind}_"):
                members.append(name)
    drawn = []
    for kind, members in kinds.items():
        series = {name: _finite_points(records, name) for name in members}
        series = {name: points for name, points in series.items() if len(points) > 1}
        if series:
            drawn.append(_over_steps(kind, series))
    return drawn


def precision_at_recall(
    ranking: np.ndarray, ground_truth: Sequence[Mapping[str, Sequence[int]]], protocol: str
) -> np.ndarray | None:
    """Interpolated precision, averaged over queries.

    The interpolated precision at a recall is the largest at this or any higher recall (Manning,
    Raghavan, Schuetze, "Introduction to Information Retrieval", 2008, section 8.4).

    Args:
      ranking: int [Q, N], images from best to worst; entries of -1 are skipped.
      ground_truth: of the Q queries.
      protocol: easy, medium or hard.

    Returns:
      Fractions float64 [51] at recalls 0, 0.02, ... 1; None if no query has positives.
    """
    curves = []
    for order, entry in zip(ranking, ground_truth, strict=True):
        positives, ignored = protocol_sets(entry, protocol)
        if not len(positives):
            continue
        counted = order[(order >= 0) & ~np.isin(order, ignored)]
        ranks = np.flatnonzero(np.isin(counted, positives))
        found = np.arange(1, len(ranks) + 1)
        best = np.maximum.accumulate((found / (ranks + 1))[::-1])[::-1]
        needed = np.ceil(np.linspace(0, 1, _LEVELS) * len(positives) - 1e-9).astype(int)
        place = np.maximum(needed, 1) - 1
        curves.append(np.append(best, 0.0)[np.minimum(place, len(best))])
    return np.mean(curves, axis=0) if curves else None


def precision_recall(
    results: Mapping[str, MethodResult],
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    protocol: str,
) -> Chart | None:
    """A curve for each method; None if no query has positives."""
    curves = {}
    for label, result in results.items():
        values = precision_at_recall(result.rankings[protocol], ground_truth, protocol)
        if values is not None:
            curves[label] = np.round(100 * values, 2).tolist()
    if not curves:
        return None
    title = f"{protocol.capitalize()}: precision over recall"
    recalls = np.linspace(*_PERCENT, _LEVELS).tolist()
    return Chart(title, "recall, %", "precision, %", recalls, curves, _PERCENT)


def by_query(
    results: Mapping[str, MethodResult], queries: Sequence[int], protocol: str
) -> Chart | None:
    """Average precision of each query, as dots, sorted by the first method.

    Args:
      results: of the methods, by label.
      queries: indices of the queries to draw.
      protocol: easy, medium or hard.

    Returns:
      The chart of the queries with a value of the first method; None if there are none.
    """
    values = {label: result.precisions[protocol] for label, result in results.items()}
    first = next(iter(values.values()))
    known = {q: value for q in queries if (value := first[q]) is not None}
    order = sorted(known, key=known.__getitem__)
    curves = {label: [_rounded(column[q]) for q in order] for label, column in values.items()}
    title = f"{protocol.capitalize()}: average precision by query"
    y_label = "average precision, %"
    return _over_queries(title, y_label, protocol, order, curves, _PERCENT, "dots")


def differences(
    results: Mapping[str, MethodResult], number: int, queries: Sequence[int], protocol: str
) -> Chart | None:
    """Gain of a method over its baseline on each query, as sorted bars; None if all are zero.

    Args:
      results: of the methods, by label.
      number: index of a result.
      queries: indices of the queries to draw.
      protocol: easy, medium or hard.

    Returns:
      As for `by_query`.
    """
    all_results = list(results.values())
    baseline = all_results[number].baseline
    if baseline is None:
        return None
    mine, theirs = (all_results[n].precisions[protocol] for n in (number, baseline))
    known = {}
    for query in queries:
        after, before = mine[query], theirs[query]
        if after is not None and before is not None:
            known[query] = after - before
    order = sorted(known, key=known.__getitem__)
    most = max(map(abs, known.values()), default=0.0)
    if not most:
        return None
    title = f"{protocol.capitalize()}: {all_results[number].method}, difference by query"
    curves = {list(results)[number]: [_rounded(known[q]) for q in order]}
    return _over_queries(title, "difference, %", protocol, order, curves, (-most, most), "bars")


def _over_steps(title: str, series: Mapping[str, Points]) -> Chart:
    """Curves of metrics that may be known at different steps."""
    steps = sorted({step for points in series.values() for step, _ in points})
    known = {name: dict(points) for name, points in series.items()}
    curves = {name: [values.get(step) for step in steps] for name, values in known.items()}
    values = [value for points in series.values() for _, value in points]
    low, high = min(0.0, *values), max(0.0, *values)
    return Chart(title, "step", "", steps, curves, (low, high if high > low else low + 1.0))


def _over_queries(
    title: str,
    y_label: str,
    protocol: str,
    order: Sequence[int],
    curves: Mapping[str, Sequence[float | None]],
    limits: Limits,
    marks: str,
) -> Chart | None:
    """A chart whose columns are queries; None without any."""
    if not order:
        return None
    x, x_label = list(range(len(order))), "query, sorted"
    return Chart(title, x_label, y_label, x, curves, limits, marks, protocol, order)


def _finite_points(records: Sequence[Mapping[str, float]], name: str) -> Points:
    points = [(record["step"], record[name]) for record in records if name in record]
    return [(x, float(f"{y:.{_DIGITS}g}")) for x, y in points if math.isfinite(x + y)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)


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
