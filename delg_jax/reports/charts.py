"""Charts of the report as numbers, which `templates/charts.js` draws."""

import dataclasses
import json
import math
from collections.abc import Mapping, Sequence

import numpy as np

from delg_jax.data.ground_truth import protocol_sets
from delg_jax.reports.method_results import MethodResult

_LEVELS = 51  # of recall
_PERCENT = (0.0, 100.0)
_DIGITS = 6  # significant ones of a training metric

Limits = tuple[float, float]
Points = Sequence[tuple[float, float]]


@dataclasses.dataclass(frozen=True)
class Chart:
    """A few curves over the same numbers.

    Attributes:
      title: what is drawn.
      across: what `x` is, with its unit.
      upward: what the curves give, with its unit; "" if the title says it.
      x: numbers in rising order.
      curves: by name, a value for each of `x`; None where there is none.
      limits: least and largest value of the axis upward.
      marks: `line`, `dots`, or `bars` from zero.
      protocol: of the queries.
      queries: number of the query at each of `x`; None if `x` are no queries.
    """

    title: str
    across: str
    upward: str
    x: Sequence[float]
    curves: Mapping[str, Sequence[float | None]]
    limits: Limits
    marks: str = "line"
    protocol: str | None = None
    queries: Sequence[int] | None = None

    def json(self) -> str:
        """All fields, for the script of the page; curves as pairs, which keep their order."""
        fields = dataclasses.asdict(self) | {"curves": list(self.curves.items())}
        return json.dumps(fields, separators=(",", ":"), allow_nan=False)


def training(records: Sequence[Mapping[str, float]]) -> list[Chart]:
    """Draws losses, accuracies and activation sparsity of a training run.

    Args:
      records: of `logs/metrics.jsonl`; each has `step` and some metrics.

    Returns:
      A chart for each kind of metric that is finite in more than one record.
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
    """Interpolated precision, the mean over queries.

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
    """Average precisions of each query, as dots, sorted by the first method.

    Args:
      results: of the methods, by label.
      queries: numbers of those to draw.
      protocol: easy, medium or hard.

    Returns:
      The chart of the queries that have a value of the first method; None if there are none.
    """
    values = {label: result.precisions[protocol] for label, result in results.items()}
    first = next(iter(values.values()))
    order = sorted((q for q in queries if first[q] is not None), key=lambda q: first[q])
    curves = {label: [_rounded(listed[q]) for q in order] for label, listed in values.items()}
    title = f"{protocol.capitalize()}: average precision by query"
    upward = "average precision, %"
    return _over_queries(title, upward, protocol, order, curves, _PERCENT, "dots")


def differences(
    results: Mapping[str, MethodResult], number: int, queries: Sequence[int], protocol: str
) -> Chart | None:
    """What a method gains over its baseline on each query, as bars, sorted; None if nothing.

    Args:
      results: of the methods, by label.
      number: of a result with a baseline.
      queries: numbers of those to draw.
      protocol: easy, medium or hard.

    Returns:
      As `by_query`.
    """
    all_results = list(results.values())
    mine, its = (
        all_results[n].precisions[protocol] for n in (number, all_results[number].baseline)
    )
    known = {q: mine[q] - its[q] for q in queries if None not in (mine[q], its[q])}
    order = sorted(known, key=known.get)
    most = max(map(abs, known.values()), default=0.0)
    if not most:
        return None
    title = f"{protocol.capitalize()}: {all_results[number].method}, difference by query"
    curves = {list(results)[number]: [_rounded(known[q]) for q in order]}
    return _over_queries(title, "difference, %", protocol, order, curves, (-most, most), "bars")


def _over_steps(title: str, series: Mapping[str, Points]) -> Chart:
    """Metrics that need not be known at the same steps."""
    steps = sorted({step for points in series.values() for step, _ in points})
    known = {name: dict(points) for name, points in series.items()}
    curves = {name: [values.get(step) for step in steps] for name, values in known.items()}
    values = [value for points in series.values() for _, value in points]
    low, high = min(0.0, *values), max(0.0, *values)
    return Chart(title, "step", "", steps, curves, (low, high if high > low else low + 1.0))


def _over_queries(
    title: str,
    upward: str,
    protocol: str,
    order: Sequence[int],
    curves: Mapping[str, Sequence[float | None]],
    limits: Limits,
    marks: str,
) -> Chart | None:
    """A chart whose columns are queries; None without any."""
    if not order:
        return None
    x, across = list(range(len(order))), "query, sorted"
    return Chart(title, across, upward, x, curves, limits, marks, protocol, order)


def _finite_points(records: Sequence[Mapping[str, float]], name: str) -> Points:
    points = [(record["step"], record[name]) for record in records if name in record]
    return [(x, float(f"{y:.{_DIGITS}g}")) for x, y in points if math.isfinite(x + y)]


def _rounded(value: float | None) -> float | None:
    return None if value is None else round(value, 2)
