"""Results as Markdown tables."""

from collections.abc import Mapping, Sequence
from typing import Any

from delg_jax import file_names


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table with aligned columns; all but the first are right-aligned.

    Names of files in it may hold anything, see `file_names.printable`.
    """
    header, rows = _cells(header), [_cells(row) for row in rows]
    widths = [max(2, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def _cells(row: Sequence[str]) -> list[str]:
    return [file_names.printable(cell).replace("|", "\\|") for cell in row]


def retrieval_table(result: Mapping[str, Any]) -> str:
    """A row per method: mAP and mean precisions of each protocol in percent, and the cost.

    Args:
      result: what `evaluation.evaluate` returns, in this or an earlier version.
    """
    return markdown(*retrieval_cells(result))


def retrieval_cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `retrieval_table`."""
    methods = result["methods"]
    first: Mapping[str, Any] = next(iter(methods.values()), {})
    protocols = list(first)
    metrics = list(first[protocols[0]]) if first else []
    labels = _labels(protocols)
    scores = [f"{label}{m}" for m in metrics for label in labels]
    megabytes = result.get("megabytes", {})
    rows = []
    for method, table in methods.items():
        values = [_number(table[p][m]) for m in metrics for p in protocols]
        milliseconds = 1000 * result["seconds"][method] / max(result["queries"], 1)
        memory = megabytes.get(method)
        cost = [f"{milliseconds:.1f}", "-" if memory is None else f"{memory:.0f}"]
        rows.append([method, *values, *cost])
    return ["method", *scores, "ms/query", "MB"], rows


def interval_table(result: Mapping[str, Any]) -> str:
    """A row per method: the first metric with its interval, and the gain over the first stage.

    Intervals and tests are by landmark; p is adjusted for the number of gains shown (Holm). The
    protocol easy is left out to keep the table narrow.

    Args:
      result: what `evaluation.evaluate` returns.

    Returns:
      The table, in percent, with 95 % intervals and p-values; "" for results without intervals.
    """
    intervals = result.get("intervals")
    if not intervals:
        return ""
    comparisons = result.get("comparisons", {})
    protocols = [name for name in next(iter(intervals.values())) if name != "easy"]
    labels = _labels(protocols)
    gains = [comparisons.get(method, {}).get(p) for method in intervals for p in protocols]
    from delg_jax.evaluation import significance  # imports much that other tables do not need

    adjusted = iter(significance.holm([gain["p_value"] if gain else None for gain in gains]))
    rows = []
    for method, bounds in intervals.items():
        firsts = [next(iter(result["methods"][method][p].values())) for p in protocols]
        cells = [_with_bounds(v, bounds[p]) for v, p in zip(firsts, protocols, strict=True)]
        mine = comparisons.get(method, {})
        rows.append([method, *cells, *(_gain(mine.get(p), next(adjusted)) for p in protocols)])
    metric = next(iter(next(iter(result["methods"].values()))[protocols[0]]))
    header = [f"{label}{metric} [95 %]" for label in labels]
    table = markdown(["method", *header, *(f"{label}gain, p (Holm)" for label in labels)], rows)
    landmarks = len(set(result.get("query_landmarks", ())))
    counts = f"{result['queries']} queries of {landmarks} landmarks" if landmarks else ""
    return f"{table}\n\n{counts}" if counts else table


def pairs_line(result: Mapping[str, Any]) -> str:
    """The average precision of verified pairs, in percent; "" for results without pairs.

    Args:
      result: what `evaluation.evaluate` returns.
    """
    pairs = result.get("pairs")
    if not pairs:
        return ""
    value = _with_bounds(pairs["average_precision"], (pairs["low"], pairs["high"]))
    counts = f"{pairs['positives']} of one landmark, {pairs['negatives']} of two"
    skipped = [pairs.get(f"skipped_{name}", 0) for name in ("positives", "negatives")]
    if any(skipped):
        counts += f"; skipped {skipped[0]} and {skipped[1]} of them"
    return f"average precision of pairs by inliers ({counts}): {value}"


def training_table(metrics: Mapping[str, float]) -> str:
    """A row per metric of the last training step."""
    return markdown(("metric", "value"), [(n, f"{v:.4g}") for n, v in sorted(metrics.items())])


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def _labels(protocols: Sequence[str]) -> list[str]:
    """Prefix of a metric for each protocol: its initial, if there are several."""
    return [f"{name[0].upper()} " for name in protocols] if len(protocols) > 1 else [""]


def _with_bounds(value: float | None, bounds: Sequence[float | None]) -> str:
    if value is None or None in bounds:
        return _number(value)
    return f"{value:.2f} [{bounds[0]:.1f}, {bounds[1]:.1f}]"


def _gain(comparison: Mapping[str, Any] | None, p_value: float | None) -> str:
    if comparison is None or comparison["difference"] is None:
        return "-"
    return f"{comparison['difference']:+.2f}, {'-' if p_value is None else f'{p_value:.2g}'}"
