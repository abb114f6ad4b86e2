"""Tables of sweeps, confidence intervals and differences between runs."""

import functools
import statistics
from collections.abc import Callable, Collection, Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.evaluation import gldv2_tasks, revisited, significance
from delg_jax.reports.method_results import MethodResult
from delg_jax.reports.tables import markdown
from delg_jax.sweeps.sweep import Result

Reader = Callable[[Result], float | None]

# By protocol, the metric that is shown of it, and its title beside the name of a method
_METRICS = {**dict.fromkeys(revisited.PROTOCOLS, "map"), **gldv2_tasks.MAIN_METRICS}
_TITLES = {"medium": "M", "hard": "H", "retrieval": "mAP@100", "recognition": "GAP"}
_PAIRS = "pairs AP"
Cells = tuple[list[str], list[list[str]]]


def spread(values: Sequence[float | None], sign: str = "") -> str:
    """Mean and sample standard deviation as text; for a single value, the value.

    Args:
      values: numbers; None is ignored.
      sign: "+" to show the sign of the mean.

    Returns:
      For example `48.27 ± 1.20`; `-` where there is no value.
    """
    known = [value for value in values if value is not None]
    if not known:
        return "-"
    mean = format(statistics.fmean(known), f"{sign}.2f")
    return mean if len(known) == 1 else f"{mean} ± {statistics.stdev(known):.2f}"


def sweep_table(results: Sequence[Result]) -> str:
    """A row per group: every method by its protocol, and pairs; else validation or the loss.

    Args:
      results: of the sweep.

    Returns:
      The table, without failed runs; `runs` counts those in the table.
    """
    columns = _columns(results)
    rows = []
    for group, members in _groups(results).items():
        good = [result for result in members if not result.error]
        cells = [spread([read(result) for result in good]) for read in columns.values()]
        rows.append([group, f"{len(good)}/{len(members)}", *cells])
    return markdown(["setting", "runs", *columns], rows)


def sweep_report(results: Sequence[Result], missing: Collection[str] = ()) -> str:
    """The table of a sweep, the gains of its re-rankings, and a line for each missing run.

    Args:
      results: of the sweep.
      missing: names of runs that neither finished nor failed; their errors say why.

    Returns:
      Markdown.
    """
    absent = [result for result in results if result.error]
    lines = []
    for result in absent:
        state = "missing" if result.run.name in missing else "failed"
        lines.append(f"- {state}: `{result.run.name}`, {' '.join(result.error.split())}")
    notes = [f"{len(results) - len(absent)} of {len(results)} runs are in the table.", *lines]
    gains = gains_table(results)
    parts = [sweep_table(results), *([gains] if gains else [])]
    return "\n\n".join([*parts, *(["\n".join(notes)] if absent else [])])


def methods_table(results: Sequence[Result]) -> str:
    """One row per group and method: the metric of every protocol, in percent."""
    protocols = _protocols(results)
    rows = []
    for group, members in _groups(results).items():
        for method in _methods(members):
            cells = [spread([_metric(r, method, p) for r in members]) for p in protocols]
            rows.append([f"{group}, {method}", *cells])
    return markdown(["mAP", *map(_title, protocols)], rows)


def gains_table(results: Sequence[Result]) -> str:
    """One row per group and re-ranking: gain over the search of the same run; empty without any."""
    protocols = _protocols(results)
    rows = []
    for group, members in _groups(results).items():
        methods = _methods(members)
        for method in methods:
            search = method.partition("+")[0]
            if search != method and search in methods:
                cells = [spread([_gain(r, method, p) for r in members], "+") for p in protocols]
                rows.append([f"{group}, {method} over {search}", *cells])
    return markdown(["gain", *map(_title, protocols)], rows) if rows else ""


def _groups(results: Sequence[Result]) -> dict[str, list[Result]]:
    groups: dict[str, list[Result]] = {}
    for result in results:
        groups.setdefault(result.run.group, []).append(result)
    return groups


def _columns(results: Sequence[Result]) -> dict[str, Reader]:
    """Functions that read a value from a result, by the heading of the column."""
    if any("evaluate" in result.metrics for result in results):
        shown = [p for p in _protocols(results) if p in _TITLES]
        found: dict[str, Reader] = {
            f"{method} {_TITLES[protocol]}": functools.partial(
                _metric, method=method, protocol=protocol
            )
            for method in _methods(results)
            for protocol in shown
        }
        has_pairs = any("pairs" in r.metrics.get("evaluate", {}) for r in results)
        return {**found, **({_PAIRS: _pairs} if has_pairs else {})}
    trained = [set(r.metrics.get("train", {})) for r in results]
    names = sorted(name for name in set().union(*trained) if name.startswith("validation_"))
    names = names or ["loss"]  # trained without validation images
    return {name: functools.partial(_training_metric, name=name) for name in names}


def _methods(results: Sequence[Result]) -> list[str]:
    """Methods of all results, in order of first appearance."""
    found = [m for r in results for m in r.metrics.get("evaluate", {}).get("methods", {})]
    return list(dict.fromkeys(found))


def _training_metric(result: Result, name: str) -> float | None:
    return result.metrics.get("train", {}).get(name)


def _protocols(results: Sequence[Result]) -> list[str]:
    """Protocols of all results, in the order of `_METRICS`."""
    methods = [r.metrics.get("evaluate", {}).get("methods", {}) for r in results]
    known = {protocol for found in methods for scores in found.values() for protocol in scores}
    return [protocol for protocol in _METRICS if protocol in known]


def _title(protocol: str) -> str:
    return _TITLES[protocol] if protocol in gldv2_tasks.MAIN_METRICS else protocol.capitalize()


def _metric(result: Result, method: str, protocol: str) -> float | None:
    methods = result.metrics.get("evaluate", {}).get("methods", {})
    return methods.get(method, {}).get(protocol, {}).get(_METRICS[protocol])


def _pairs(result: Result) -> float | None:
    return result.metrics.get("evaluate", {}).get("pairs", {}).get("average_precision")


def _gain(result: Result, method: str, protocol: str) -> float | None:
    search = method.partition("+")[0]
    before, after = (_metric(result, m, protocol) for m in (search, method))
    return None if before is None or after is None else after - before


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
