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

    Args:
      metrics: of `metrics.json`.

    Returns:
      A row per method and protocol; None without intervals.
    """
    intervals, compared = metrics.get("intervals"), metrics.get("comparisons", {})
    if not intervals:
        return None
    rows = []
    for method, by_protocol in intervals.items():
        for protocol, bounds in by_protocol.items():
            value = next(iter(metrics["methods"][method][protocol].values()))
            gain = compared.get(method, {}).get(protocol)
            cells = ["-", "-", "-"]
            if gain is not None:
                shown = _gain_cells(gain["difference"], gain["low"], gain["high"], gain["p_value"])
                cells = [gain["over"], *shown]
            rows.append([method, protocol, _with_bounds(value, *bounds), *cells])
    return ["method", "protocol", "mAP [95 %]", "over", "gain [95 %]", "p"], rows


def difference_cells(results: Mapping[str, MethodResult]) -> Cells | None:
    """Header and rows of paired differences between runs on the same queries.

    Args:
      results: of the methods of one group, by label.

    Returns:
      A row per protocol of each method that has a baseline; None if none has.
    """
    all_results, rows = list(results.values()), []
    for label, result in results.items():
        if result.baseline is None:
            continue
        for protocol in PROTOCOLS:
            mine, its = (
                np.array(side.precisions[protocol], np.float64)
                for side in (result, all_results[result.baseline])
            )
            found = significance.paired(mine, its)
            if not found.queries:
                continue
            shown = _gain_cells(*found.difference, found.p_value)
            rows.append([label, protocol, str(found.queries), *shown])
    return (
        (["run: method", "protocol", "queries", "difference [95 %]", "p"], rows) if rows else None
    )


def _gain_cells(
    difference: float | None, low: float | None, high: float | None, p_value: float | None
) -> Sequence[str]:
    if None in (difference, low, high, p_value):
        return ["-", "-"]
    return [f"{difference:+.2f} [{low:+.2f}, {high:+.2f}]", f"{p_value:.2g}"]


def _with_bounds(value: float | None, low: float | None, high: float | None) -> str:
    if value is None:
        return "-"
    return f"{value:.2f}" + ("" if None in (low, high) else f" [{low:.2f}, {high:.2f}]")
