"""Benchmarks as tables, and what changed from one to another."""

from collections.abc import Mapping, Sequence
from typing import Any

from delg_jax.reports.tables import markdown

Result = Mapping[str, Any]


def benchmark_table(result: Result) -> str:
    """A row for each contender, in milliseconds per unit of work.

    Args:
      result: what `evaluation.benchmarks.bench` returns.

    Returns:
      The table; the ratio is the row's time over ours, with its quartiles.
    """
    header = [result["name"], f"ms/{result['unit']}", "spread", "ratio", "first call, s", "facts"]
    rows = []
    for timed in result["contenders"]:
        cells = [f"{1e3 * timed[name]:.4g}" for name in ("median", "spread")]
        low, high = timed["ratio_quartiles"]
        facts = ", ".join(f"{name} {value:.3g}" for name, value in timed["facts"].items())
        cells += [f"{timed['ratio']:.2f} [{low:.2f}, {high:.2f}]"]
        rows.append([timed["name"], *cells, f"{timed['first_call_seconds']:.2f}", facts])
    return markdown(header, rows)


def floor_line(result: Result) -> str:
    """The share of the physical limit that ours reaches; empty where the limit is not known."""
    floor = result["floor"]
    if floor is None:
        return ""
    parts = [f"least possible {1e3 * floor['seconds']:.4g} ms/{result['unit']}"]
    if "products_per_second" in floor:
        parts.append(f"at {floor['products_per_second'] / 1e9:.3g} GFLOP/s of matrix products")
    if "bytes_per_second" in floor:
        parts.append(f"at {floor['bytes_per_second'] / 1e9:.3g} GB/s of a copy")
    return f"{', '.join(parts)}: ours reaches {100 * floor['share']:.0f} %"


def memory_table(result: Result) -> str:
    """A row for each stage and number of images.

    Args:
      result: what `evaluation.benchmarks.bench_memory` returns.

    Returns:
      The table.
    """
    rows = [
        [row["stage"], row["bound"], f"{row['images']:,}", _megabytes(row["megabytes"])]
        for row in result["rows"]
    ]
    return markdown(["stage", "bounded by", "images", "MB at the peak"], rows)


def moves(old: Result, new: Result) -> list[dict[str, Any]]:
    """Contenders whose time changed by more than both spreads together.

    Args:
      old: a result of `bench`.
      new: a later one of the same benchmark and size.

    Returns:
      For each: `name`, `kind`, `old` and `new` (seconds per unit) and `factor` (new over old).
    """
    before = {timed["name"]: timed for timed in old["contenders"]}
    found = []
    for timed in new["contenders"]:
        was = before.get(timed["name"])
        if was is None:
            continue
        if abs(timed["median"] - was["median"]) > timed["spread"] + was["spread"]:
            factor = timed["median"] / was["median"]
            sides = {"old": was["median"], "new": timed["median"], "factor": factor}
            found.append({"name": timed["name"], "kind": timed["kind"], **sides})
    return found


def is_regression(found: Sequence[Mapping[str, Any]]) -> bool:
    """Whether ours became slower, and more so than every peer that became slower as well.

    A machine under load slows all of them.
    """
    slower = [move for move in found if move["factor"] > 1]
    ours = [move["factor"] for move in slower if move["kind"] != "peer"]
    peers = [move["factor"] for move in slower if move["kind"] == "peer"]
    return bool(ours) and max(ours) > max(peers, default=1.0)


def moves_table(unit: str, found: Sequence[Mapping[str, Any]]) -> str:
    """A row for each of `moves`, in milliseconds per unit."""
    rows = [
        [move["name"], f"{1e3 * move['old']:.4g}", f"{1e3 * move['new']:.4g}"]
        + [f"{move['factor']:.2f}"]
        for move in found
    ]
    return markdown(["moved", f"old, ms/{unit}", "new", "new / old"], rows)


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
