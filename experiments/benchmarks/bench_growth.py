"""How the time of search and embedding grows with images, features, queries, points and devices.

    python -m experiments.benchmarks.bench_growth

One number grows, the others stay. Devices are virtual ones of a CPU, which share its cores, so that
their curve shows what sharing costs, not what it gains. Times are medians after a warm-up; all
sizes of a curve take turns. The growth of spatial verification, with hypotheses, is that of
`bench_verification`. Writes bench_growth.json, .md and .svg into --results.
"""

import pathlib
import statistics
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.benchmarks import environment
from delg_jax.benchmarks.cases import mds, vectors
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.reports.line_chart import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank.classical_mds import classical_mds
from delg_jax.search import SimilarityKernel, global_search, local_search
from experiments.benchmarks.bench_verification import exponent

_KERNEL = SimilarityKernel("threshold", 0.5)
_TOP = 50
_DEVICES = 8

# What grows: everything that stays, and the numbers. The name of a curve says which.
FULL = {
    "global, images": ({"queries": 16, "dim": 512}, "images", (4_000, 16_000, 64_000, 256_000)),
    "global, queries": ({"images": 32_000, "dim": 512}, "queries", (1, 4, 16, 64, 256)),
    "local, images": ({"queries": 1, "features": 200}, "images", (100, 200, 400, 800)),
    "local, features": ({"queries": 1, "images": 200}, "features", (50, 100, 200, 400)),
    "local, queries": ({"images": 100, "features": 100}, "queries", (1, 4, 16)),
    "local, devices": (
        {"queries": 2, "images": 256, "features": 100},
        "devices",
        (1, 2, 4, 8),
    ),
    "mds, points": ({}, "points", (101, 201, 401, 801)),
}
QUICK = {
    "global, images": ({"queries": 2, "dim": 8}, "images", (16, 32)),
    "local, features": ({"queries": 1, "images": 4}, "features", (4, 8)),
    "local, devices": ({"queries": 1, "images": 8, "features": 4}, "devices", (1, 2)),
    "mds, points": ({}, "points", (10, 20)),
}
Curves = Mapping[str, tuple[Mapping[str, int], str, Sequence[int]]]


def global_call(queries: int, images: int, dim: int) -> Callable[[], Any]:
    """A search of random unit vectors."""
    rng = np.random.default_rng(0)
    asked, database = vectors.unit(rng, queries, dim), vectors.unit(rng, images, dim)
    return lambda: global_search.search(asked, database, min(_TOP, images))


def local_call(queries: int, images: int, features: int, devices: int = 1) -> Callable[[], Any]:
    """An exact search of random unit vectors of 128 dimensions."""
    rng = np.random.default_rng(0)
    sides = (vectors.unit(rng, number, features, 128) for number in (queries, images))
    (asked, asked_mask), (database, mask) = ((x, np.ones(x.shape[:2], bool)) for x in sides)
    given = asked, asked_mask, database, mask, _KERNEL
    return lambda: local_search.similarity(*given, devices=jax.local_devices()[:devices])


def mds_call(points: int) -> Callable[[], Any]:
    """Classical scaling to 128 dimensions, or as many as there are points."""
    distances = mds.made_up_distances(np.random.default_rng(0), points, 128)
    return lambda: classical_mds(distances, min(points, 128)).block_until_ready()


_CALLS = {"global": global_call, "local": local_call, "mds": mds_call}


def measure(curves: Curves, repeats: int) -> dict[str, dict[str, Any]]:
    """Times every curve.

    Args:
      curves: see `FULL`; what stands before the comma of a name is measured.
      repeats: rounds after the first, which does not count.

    Returns:
      By curve: `grows`, `stays`, `points` (number, seconds) and `exponent`, of the largest three.
    """
    found = {}
    for name, (stays, grows, numbers) in curves.items():
        make = _CALLS[name.partition(",")[0]]
        calls = [make(**stays, **{grows: number}) for number in numbers]
        times: list[list[float]] = [[] for _ in calls]
        for _ in range(repeats + 1):
            for call, taken in zip(calls, times, strict=True):
                start = time.perf_counter()
                call()
                taken.append(time.perf_counter() - start)
        medians = [statistics.median(taken[1:]) for taken in times]
        points = list(zip(numbers, medians, strict=True))
        common = {"grows": grows, "stays": dict(stays), "points": points}
        found[name] = {**common, "exponent": exponent(points)}
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """A row for each curve."""
    rows = []
    for name, curve in found.items():
        stays = ", ".join(f"{value:,} {what}" for what, value in curve["stays"].items())
        times = ", ".join(f"{1e3 * seconds:.3g} at {n:,}" for n, seconds in curve["points"])
        rows.append([name, stays, times, f"{curve['exponent']:.2f}"])
    return markdown(["what grows", "what stays", "ms", "exponent"], rows)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_boolean("quick", False, "Small sizes, for a trial.", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Rounds that count.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Of the curves.")


def run(values: flags.FlagValues) -> None:
    """Measures, prints the table and draws the curves."""
    if not values.quick:  # before the first use of a device
        jax.config.update("jax_num_cpu_devices", _DEVICES)
    found = measure(QUICK if values.quick else FULL, values.repeats)
    results = pathlib.Path(values.results)
    content = {"curves": found, "machine": environment.describe()}
    workdir.write_json(results / "bench_growth.json", content)
    text = table(found) + "\n"
    workdir.write_text(results / "bench_growth.md", text)
    curves = {f"{name}: {curve['exponent']:.2f}": curve["points"] for name, curve in found.items()}
    title = "Time by what grows, with fitted exponents"
    picture = line_chart(
        title, "images, queries, features, points or devices", "seconds", curves, "log"
    )
    workdir.write_text(results / "bench_growth.svg", picture)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
