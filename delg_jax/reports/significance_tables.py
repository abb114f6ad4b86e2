"""Tables of confidence intervals of each method, and of differences between two runs."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.evaluation import significance
from delg_jax.reports.method_results import MethodResult

Cells = tuple[list[str], list[list[str]]]


def interval_cells(metrics: Mapping[str, Any]) -> Cells | None:
    """Header and rows of the 95 % intervals of mAP, and of the gains over first stages.

    The last column adjusts p for the number of gains in the table (Holm).

    Args:
      metrics: of `metrics.json`.

    Returns:
      A row per method and protocol; None without intervals.
    """
    intervals, compared = metrics.get("intervals"), metrics.get("comparisons", {})
    if not intervals:
        return None
    rows, p_values = [], []
    for method, by_protocol in intervals.items():
        for protocol, bounds in by_protocol.items():
            value = next(iter(metrics["methods"][method][protocol].values()))
            gain = compared.get(method, {}).get(protocol)
            cells = ["-", "-", "-", "-"]
            if gain is not None:
                shown = _gain_cells(gain["difference"], gain["low"], gain["high"], gain["p_value"])
                cells = [gain["over"], _counts(gain.get("queries"), gain.get("landmarks")), *shown]
            rows.append([method, protocol, _with_bounds(value, *bounds), *cells])
            p_values.append(gain["p_value"] if gain else None)
    header = ["method", "protocol", "mAP [95 %]", "over", "queries (landmarks)", "gain [95 %]", "p"]
    return [*header, "p (Holm)"], _with_holm(rows, p_values)


def difference_cells(results: Mapping[str, MethodResult]) -> Cells | None:
    """Header and rows of paired differences between runs on the same queries.

    Args:
      results: of the methods of one group, by label.

    Returns:
      A row per protocol of each method that has a baseline; None if none has. Without the
      landmarks of the queries, which early versions did not write, there is no interval and no p.
    """
    all_results, rows, p_values = list(results.values()), [], []
    for label, result in results.items():
        if result.baseline is None:
            continue
        for protocol in PROTOCOLS:
            mine, its = (
                np.array(side.precisions[protocol], np.float64)
                for side in (result, all_results[result.baseline])
            )
            found = significance.paired(mine, its, result.landmarks)
            if not found.queries:
                continue
            known = result.landmarks is not None
            difference, low, high = map(significance.number_or_none, found.difference)
            bounds = (low, high, found.p_value) if known else (None, None, None)
            counts = _counts(found.queries, found.landmarks if known else None)
            rows.append([label, protocol, counts, *_gain_cells(difference, *bounds)])
            p_values.append(bounds[2])
    header = ["run: method", "protocol", "queries (landmarks)", "difference [95 %]", "p"]
    return ([*header, "p (Holm)"], _with_holm(rows, p_values)) if rows else None


def _with_holm(rows: list[list[str]], p_values: Sequence[float | None]) -> list[list[str]]:
    adjusted = significance.holm(p_values)
    return [[*row, _p_cell(value)] for row, value in zip(rows, adjusted, strict=True)]


def _p_cell(p_value: float | None) -> str:
    return "-" if p_value is None else f"{p_value:.2g}"


def _counts(queries: int | None, landmarks: int | None) -> str:
    if queries is None:
        return "-"
    return str(queries) if landmarks is None else f"{queries} ({landmarks})"


def _gain_cells(
    difference: float | None, low: float | None, high: float | None, p_value: float | None
) -> Sequence[str]:
    if difference is None:
        return ["-", "-"]
    bounds = "" if low is None or high is None else f" [{low:+.2f}, {high:+.2f}]"
    return [f"{difference:+.2f}{bounds}", _p_cell(p_value)]


def _with_bounds(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if None in (low, high) else f" [{low:.2f}, {high:.2f}]")
