"""Benchmarks: each kernel beside its peers, on the same inputs, in turn."""

import importlib
import logging
import statistics
import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from delg_jax.benchmarks import environment, roofline
from delg_jax.benchmarks.case import Bench, Comparison, Contender, Unavailable
from delg_jax.benchmarks.cases import memory
from delg_jax.errors import UserError, require_choice

# Benchmark: the module of `evaluation.benches` that knows it. Imported when asked for: some need
# packages that are not everywhere.
NAMES = {
    "train": "train",
    "extract_r18_3": "extract",
    "extract_r18_7": "extract",
    "extract_r50_3": "extract",
    "extract_r50_7": "extract",
    "verify": "verify",
    "global": "global_search",
    "global_one": "global_search",
    "local": "local",
    "binary": "binary",
    "mds": "mds",
    "input": "input",
}
MEMORY = "memory"  # compares sizes of ours, not ours and peers
ALL, NONE = "all", "none"

_log = logging.getLogger(__name__)


def load(name: str) -> Bench:
    """The benchmark of that name, a key of `NAMES`; a UserError for another."""
    require_choice("delg bench", name, (*NAMES, MEMORY))
    return importlib.import_module(f"delg_jax.benchmarks.cases.{NAMES[name]}").BENCHES[name]


def bench(
    name: str, repeats: int = 5, size: str = "standard", peers: str | Sequence[str] = ALL
) -> dict[str, Any]:
    """Times a kernel beside its peers.

    All are called once to warm up; then they take turns, so that a change of the machine's load
    meets all.

    Args:
      name: a key of `NAMES`.
      repeats: timed rounds.
      size: a size of the benchmark.
      peers: names of the peers wanted, or `ALL` or `NONE`.

    Returns:
      `name`, `size` (the numbers behind it), `unit`, `repeats`, `contenders` (see `_summary`; ours
      first), `left_out` (peer: why), `floor` (see `floors.floor`; None where it is not known) and
      `machine`.

    Raises:
      UserError: for an unknown name, size or peer, or no repeats.
    """
    known = load(name)
    require_choice("--size", size, tuple(known.sizes))
    if repeats < 1:
        raise UserError("--repeats", repeats, "must be at least 1")
    numbers = dict(known.sizes[size])
    comparison = known.compare(np.random.default_rng(0), **numbers)
    contenders, left_out = _contenders(comparison, peers)
    found = _timed([contender for _, contender in contenders], repeats)
    rows = [
        _summary(kind, contender, *times, found[0][1])
        for (kind, contender), times in zip(contenders, found, strict=True)
    ]
    work = comparison.work
    return {
        "name": name,
        "size": numbers,
        "unit": comparison.unit,
        "repeats": repeats,
        "contenders": rows,
        "left_out": left_out,
        "floor": None if work is None else roofline.floor(work, rows[0]["median"]),
        "machine": environment.describe(),
    }


def bench_memory(size: str = "standard") -> dict[str, Any]:
    """Peak memory of the stages as the number of images grows.

    Args:
      size: a key of `benches.memory.SIZES`.

    Returns:
      `name`, `size`, `rows` (see `benches.memory.measure`) and `machine`.

    Raises:
      UserError: for an unknown size.
    """
    require_choice("--size", size, tuple(memory.SIZES))
    numbers = dict(memory.SIZES[size])
    rows = memory.measure(**numbers)
    return {"name": MEMORY, "size": numbers, "rows": rows, "machine": environment.describe()}


def _contenders(
    comparison: Comparison, peers: str | Sequence[str]
) -> tuple[list[tuple[str, Contender]], dict[str, str]]:
    """Kind and contender, ours first, and why which peers are left out."""
    names = {ALL: tuple(comparison.peers), NONE: ()}.get(peers) if isinstance(peers, str) else None
    names = (peers.split(",") if isinstance(peers, str) else peers) if names is None else names
    for name in names:
        require_choice("--peers", name, (ALL, NONE, *comparison.peers))
    chosen = [("ours", comparison.ours), *(("variant", one) for one in comparison.variants)]
    left_out = {}
    for name in names:
        try:
            chosen.append(("peer", comparison.peers[name]()))
        except Unavailable as error:
            _log.warning("left out %s: %s", name, error)
            left_out[name] = str(error)
    return chosen, left_out


def _timed(contenders: Sequence[Contender], repeats: int) -> list[tuple[float, list[float]]]:
    """Of each contender the seconds of the first call, and per unit those of every round."""
    first = [_seconds(contender.call) for contender in contenders]
    rounds: list[list[float]] = [[] for _ in contenders]
    for _ in range(repeats):
        for contender, times in zip(contenders, rounds, strict=True):
            times.append(_seconds(contender.call) / contender.units)
    return list(zip(first, rounds, strict=True))


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _summary(
    kind: str, contender: Contender, first: float, seconds: list[float], ours: list[float]
) -> dict[str, Any]:
    """Times per unit, and how they compare with ours.

    `first_call_seconds` is with compilation, `spread` the interquartile range, `ratio` the median
    over the rounds of this time over ours, above 1 where ours is faster, with its quartiles.
    """
    low, high = np.percentile(seconds, [25, 75])
    ratios = np.array(seconds) / np.array(ours)
    return {
        "name": contender.name,
        "kind": kind,
        "first_call_seconds": first,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "spread": float(high - low),
        "units_per_second": 1.0 / statistics.median(seconds),
        "ratio": float(np.median(ratios)),
        "ratio_quartiles": [float(q) for q in np.percentile(ratios, [25, 75])],
        "facts": dict(contender.facts),
    }
