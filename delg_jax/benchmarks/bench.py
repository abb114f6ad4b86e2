"""`delg bench`: times each kernel beside its peers, on the same inputs, in turn."""

import importlib
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np

from delg_jax.benchmarks import environment
from delg_jax.benchmarks.case import Case, Comparison, Implementation, Unavailable, least_time
from delg_jax.benchmarks.harness import Timing, time_in_turn
from delg_jax.errors import UserError, require_choice

# By name of a case, its module in `benchmarks.cases`. Modules are imported only when asked for,
# because some need optional packages.
CASE_MODULES = {
    "train": "train",
    "extract_r18_3": "extract",
    "extract_r18_7": "extract",
    "extract_r50_3": "extract",
    "extract_r50_7": "extract",
    "verify": "verify",
    "global": "global_search",
    "global_one": "global_search",
    "local": "local",
    "binary": "local",
    "mds": "mds",
    "input": "input",
}
MEMORY = "memory"  # measures our own peak memory and has no peers
ALL, NONE = "all", "none"

_log = logging.getLogger(__name__)


def load(name: str) -> Case:
    """Returns the case `name`, a key of `CASE_MODULES`; any other name is a UserError."""
    require_choice("delg bench", name, (*CASE_MODULES, MEMORY))
    return importlib.import_module(f"delg_jax.benchmarks.cases.{CASE_MODULES[name]}").CASES[name]


def bench(
    name: str, repeats: int = 5, size: str = "standard", peers: str | Sequence[str] = ALL
) -> dict[str, Any]:
    """Times a kernel beside its peers.

    Args:
      name: a key of `CASE_MODULES`.
      repeats: timed rounds.
      size: a size of the case.
      peers: names of the peers to time, or `ALL` or `NONE`.

    Returns:
      `name`, `size` (its numbers), `unit`, `repeats`, `implementations` (see `_summary`; ours
      first), `left_out` (the reason by peer), `roofline` (see `case.least_time`; None if the
      least work is unknown) and `environment`.

    Raises:
      UserError: for an unknown name, size or peer, or no repeats.
    """
    case = load(name)
    require_choice("--size", size, tuple(case.sizes))
    if repeats < 1:
        raise UserError("--repeats", repeats, "must be at least 1")
    numbers = dict(case.sizes[size])
    comparison = case.compare(np.random.default_rng(0), **numbers)
    implementations, left_out = _implementations(comparison, peers)
    timings = time_in_turn([timed.call for _, timed in implementations], repeats)
    ours = np.array(timings[0].seconds) / comparison.ours.units
    rows = [
        _summary(kind, implementation, timing, ours)
        for (kind, implementation), timing in zip(implementations, timings, strict=True)
    ]
    work = comparison.work
    return {
        "name": name,
        "size": numbers,
        "unit": comparison.unit,
        "repeats": repeats,
        "implementations": rows,
        "left_out": left_out,
        "roofline": None if work is None else least_time(work, rows[0]["median"]),
        "environment": environment.describe(
            {"name": name, **numbers, "repeats": repeats, "left_out": sorted(left_out)}
        ),
    }


def bench_memory(size: str = "standard") -> dict[str, Any]:
    """Measures the peak memory of each stage as the number of images grows.

    Args:
      size: a key of `memory.SIZES`.

    Returns:
      `name`, `size` (its numbers), `rows` (see `memory.measure`) and `environment`.

    Raises:
      UserError: for an unknown size.
    """
    from delg_jax.benchmarks.cases import memory  # its imports need packages for data sets

    require_choice("--size", size, tuple(memory.SIZES))
    numbers: dict[str, Any] = dict(memory.SIZES[size])
    rows = memory.measure(**numbers)
    found = environment.describe({"name": MEMORY, **numbers})
    return {"name": MEMORY, "size": numbers, "rows": rows, "environment": found}


def _implementations(
    comparison: Comparison, peers: str | Sequence[str]
) -> tuple[list[tuple[str, Implementation]], dict[str, str]]:
    """What is timed, each with its kind, ours first; and by peer, why it is left out."""
    if isinstance(peers, str):
        shorthands: dict[str, Sequence[str]] = {ALL: tuple(comparison.peers), NONE: ()}
        peers = shorthands.get(peers, peers.split(","))
    for name in peers:
        require_choice("--peers", name, (ALL, NONE, *comparison.peers))
    chosen = [("ours", comparison.ours), *(("variant", one) for one in comparison.variants)]
    left_out = {}
    for name in peers:
        try:
            chosen.append(("peer", comparison.peers[name]()))
        except Unavailable as error:
            _log.warning("left out %s: %s", name, error)
            left_out[name] = str(error)
    return chosen, left_out


def _summary(
    kind: str, implementation: Implementation, timing: Timing, ours: np.ndarray
) -> dict[str, Any]:
    """Seconds per unit, and their ratio to ours.

    `first_call_seconds` includes compilation. `spread` is the interquartile range. `ratio` is the
    median over the rounds of this time over our time, above 1 where ours is faster; its quartiles
    are beside it.
    """
    seconds = np.array(timing.seconds) / implementation.units
    low, high = np.percentile(seconds, [25, 75])
    median = float(np.median(seconds))
    ratios = seconds / ours
    return {
        "name": implementation.name,
        "kind": kind,
        "first_call_seconds": timing.first_call,
        "seconds": seconds.tolist(),
        "median": median,
        "spread": float(high - low),
        "units_per_second": 1.0 / median,
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(q) for q in np.percentile(ratios, [25, 75])],
        "facts": dict(implementation.facts),
    }
