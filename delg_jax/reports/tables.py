"""Results as tables of plain text, which are also Markdown."""

from collections.abc import Mapping, Sequence
from typing import Any

_PROTOCOLS = ("easy", "medium", "hard")


def markdown(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A Markdown table whose columns line up; all but the first are right-aligned."""
    widths = [max(2, *(len(row[i]) for row in (header, *rows))) for i in range(len(header))]

    def line(cells: Sequence[str]) -> str:
        padded = [
            cell.ljust(width) if i == 0 else cell.rjust(width)
            for i, (cell, width) in enumerate(zip(cells, widths, strict=True))
        ]
        return f"| {' | '.join(padded)} |"

    rule = ["-" * width if i == 0 else "-" * (width - 1) + ":" for i, width in enumerate(widths)]
    return "\n".join([line(header), line(rule), *map(line, rows)])


def retrieval_table(result: Mapping[str, Any]) -> str:
    """One row per method: mAP and mean precisions of each protocol, in percent, and its cost.

    Args:
      result: what `evaluation.evaluate` returns, or returned before it counted memory.

    Returns:
      The table.
    """
    return markdown(*retrieval_cells(result))


def retrieval_cells(result: Mapping[str, Any]) -> tuple[list[str], list[list[str]]]:
    """Header and rows of `retrieval_table`."""
    methods = result["methods"]
    metrics = list(next(iter(methods.values()))["medium"]) if methods else []
    scores = [f"{p[0].upper()} {m}" for m in metrics for p in _PROTOCOLS]
    megabytes = result.get("megabytes", {})
    rows = []
    for method, table in methods.items():
        values = [_number(table[p][m]) for m in metrics for p in _PROTOCOLS]
        milliseconds = 1000 * result["seconds"][method] / max(result["queries"], 1)
        memory = megabytes.get(method)
        cost = [f"{milliseconds:.1f}", "-" if memory is None else f"{memory:.0f}"]
        rows.append([method, *values, *cost])
    return ["method", *scores, "ms/query", "MB"], rows


def training_table(metrics: Mapping[str, float]) -> str:
    """The last metrics of a training run, one row each."""
    return markdown(("metric", "value"), [(n, f"{v:.4g}") for n, v in sorted(metrics.items())])


def benchmark_table(result: Mapping[str, Any]) -> str:
    """One row for ours and one for its peer, in milliseconds per unit of work.

    Args:
      result: what `evaluation.benchmarks.bench` returns.

    Returns:
      The table; the ratio is the peer's median over the row's.
    """
    header = [result["name"], f"ms/{result['unit']}", "spread", "ratio", "first call, s"]
    rows = []
    for timed in (result["ours"], result["peer"]):
        cells = [f"{1e3 * timed[name]:.4g}" for name in ("median", "spread")]
        ratio = f"{result['peer']['median'] / timed['median']:.2f}"
        rows.append([timed["name"], *cells, ratio, f"{timed['first_call_seconds']:.2f}"])
    return markdown(header, rows)


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
