"""Results of benchmarks as tables, and what changed between two of them."""

from collections.abc import Mapping, Sequence
from typing import Any

from delg_jax.reports.tables import markdown

Result = Mapping[str, Any]


def benchmark_table(result: Result) -> str:
    """Returns a row for each implementation, in milliseconds per unit of work.

    Args:
      result: of `benchmarks.bench.bench`.

    Returns:
      Markdown; the ratio is the row's time over ours, with its quartiles.
    """
    header = [result["name"], f"ms/{result['unit']}", "spread", "ratio", "first call, s", "facts"]
    rows = []
    for timed in result["implementations"]:
        cells = [f"{1e3 * timed[name]:.4g}" for name in ("median", "spread")]
        low, high = timed["ratio_quartiles"]
        facts = ", ".join(f"{name} {value:.3g}" for name, value in timed["facts"].items())
        cells += [f"{timed['ratio']:.2f} [{low:.2f}, {high:.2f}]"]
        rows.append([timed["name"], *cells, f"{timed['first_call_seconds']:.2f}", facts])
    return markdown(header, rows)


def roofline_line(result: Result) -> str:
    """Returns the share of the roofline that ours reaches; empty if the roofline is unknown."""
    roofline = result["roofline"]
    if roofline is None:
        return ""
    parts = [f"least possible {1e3 * roofline['seconds']:.4g} ms/{result['unit']}"]
    if "products_per_second" in roofline:
        parts.append(f"at {roofline['products_per_second'] / 1e9:.3g} GFLOP/s of matrix products")
    if "bytes_per_second" in roofline:
        parts.append(f"at {roofline['bytes_per_second'] / 1e9:.3g} GB/s of a copy")
    return f"{', '.join(parts)}: ours reaches {100 * roofline['share']:.0f} %"


def memory_table(result: Result) -> str:
    """Returns a row for each stage and number of images.

    Args:
      result: of `benchmarks.bench.bench_memory`.

    Returns:
      Markdown.
    """
    rows = [
        [row["stage"], row["bound"], f"{row['images']:,}", _megabytes(row["megabytes"])]
        for row in result["rows"]
    ]
    return markdown(["stage", "bounded by", "images", "MB at the peak"], rows)


def changes(old: Result, new: Result) -> list[dict[str, Any]]:
    """Finds the implementations whose time changed by more than both spreads together.

    Args:
      old: a result of `bench`.
      new: a later result of the same benchmark and size.

    Returns:
      For each: `name`, `kind`, `old` and `new` (seconds per unit) and `factor` (new over old).
    """
    before = {timed["name"]: timed for timed in old["implementations"]}
    found = []
    for timed in new["implementations"]:
        was = before.get(timed["name"])
        if was is None:
            continue
        if abs(timed["median"] - was["median"]) > timed["spread"] + was["spread"]:
            factor = timed["median"] / was["median"]
            sides = {"old": was["median"], "new": timed["median"], "factor": factor}
            found.append({"name": timed["name"], "kind": timed["kind"], **sides})
    return found


def is_regression(found: Sequence[Mapping[str, Any]]) -> bool:
    """Returns whether ours became slower by a larger factor than every peer.

    A machine under load slows down all of them.
    """
    slower = [change for change in found if change["factor"] > 1]
    ours = [change["factor"] for change in slower if change["kind"] != "peer"]
    peers = [change["factor"] for change in slower if change["kind"] == "peer"]
    return bool(ours) and max(ours) > max(peers, default=1.0)


def changes_table(unit: str, found: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row for each of `changes`, in milliseconds per unit."""
    rows = [
        [
            change["name"],
            f"{1e3 * change['old']:.4g}",
            f"{1e3 * change['new']:.4g}",
            f"{change['factor']:.2f}",
        ]
        for change in found
    ]
    return markdown(["changed", f"old, ms/{unit}", "new", "new / old"], rows)


def _megabytes(value: float | None) -> str:
    return "-" if value is None else f"{value:.0f}"
