"""Curves of a group of lanes: precision over recall, and average precision over queries."""

from collections.abc import Mapping, Sequence

import numpy as np

from delg_jax.evaluation.revisited import protocol_sets
from delg_jax.reports.charts import Chart, chart
from delg_jax.reports.lanes import Lane

_LEVELS = 51  # of recall
_PERCENT = (0.0, 100.0)


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
    sides: Mapping[str, Lane], ground_truth: Sequence[Mapping[str, Sequence[int]]], protocol: str
) -> Chart | None:
    """A curve for each lane by its label; None if no query has positives."""
    recalls = np.linspace(*_PERCENT, _LEVELS)
    series = {}
    for label, lane in sides.items():
        values = precision_at_recall(lane.rankings[protocol], ground_truth, protocol)
        if values is not None:
            series[label] = list(zip(recalls.tolist(), (100 * values).tolist(), strict=True))
    title = f"{protocol.capitalize()}: precision over recall"
    return chart(title, series, _PERCENT, _PERCENT, "recall, %") if series else None


def by_query(
    sides: Mapping[str, Lane], queries: Sequence[int], protocol: str
) -> tuple[Chart, list[int]] | None:
    """Average precisions of each query, as dots, sorted by the first lane.

    Args:
      sides: lanes by label.
      queries: numbers of those to draw.
      protocol: easy, medium or hard.

    Returns:
      The chart and the queries from left to right, those of known precision; None if there are
      none.
    """
    values = {label: lane.precisions[protocol] for label, lane in sides.items()}
    first = next(iter(values.values()))
    order = sorted((q for q in queries if first[q] is not None), key=lambda q: first[q])
    series = {
        label: [(x, listed[q]) for x, q in enumerate(order) if listed[q] is not None]
        for label, listed in values.items()
    }
    return _drawn(
        f"{protocol.capitalize()}: average precision by query", series, order, _PERCENT, "dots"
    )


def differences(
    sides: Mapping[str, Lane], lane: int, queries: Sequence[int], protocol: str
) -> tuple[Chart, list[int]] | None:
    """What a lane gains over its rival on each query, as bars, sorted; None if nothing.

    Args:
      sides: lanes by label.
      lane: number of one with a rival.
      queries: numbers of those to draw.
      protocol: easy, medium or hard.

    Returns:
      As `by_query`.
    """
    lanes = list(sides.values())
    mine, its = (lanes[n].precisions[protocol] for n in (lane, lanes[lane].rival))
    known = {q: mine[q] - its[q] for q in queries if None not in (mine[q], its[q])}
    order = sorted(known, key=known.get)
    label = list(sides)[lane]
    most = max(map(abs, known.values()), default=0.0)
    if not most:
        return None
    series = {label: [(x, known[q]) for x, q in enumerate(order)]}
    title = f"{protocol.capitalize()}: {lanes[lane].method}, difference by query"
    return _drawn(title, series, order, (-most, most), "bars")


def _drawn(
    title: str,
    series: dict[str, list[tuple[float, float]]],
    order: list[int],
    upward: tuple[float, float],
    marks: str,
) -> tuple[Chart, list[int]] | None:
    if not order:
        return None
    across = (0.0, max(len(order) - 1, 1.0))
    return chart(title, series, across, upward, "query, sorted", marks), order
