"""How the time of search and embedding grows with images, features, queries, points and devices.

    python -m experiments.benchmarks.search_growth

One number grows, the others are fixed. The devices are virtual devices of a CPU and share its
cores, so their curve shows the overhead of sharing, not a gain. Times are medians after a warm-up;
the sizes of a curve take turns. `verification_growth` does the same for spatial verification.
Writes search_growth.json, .md and .svg into --results.
"""

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.benchmarks.cases import mds, vectors
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.reports.charts import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank.mds_solvers import classical_mds
from delg_jax.search import SimilarityKernel, global_search, local_search

_KERNEL = SimilarityKernel("threshold", 0.5)
_TOP = 50
_DEVICES = 8

# By name of a curve: the fixed numbers, what grows, and its values
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
    """Returns a global search of random unit vectors."""
    rng = np.random.default_rng(0)
    asked, database = vectors.unit(rng, queries, dim), vectors.unit(rng, images, dim)
    return lambda: global_search.search(asked, database, min(_TOP, images))


def local_call(queries: int, images: int, features: int, devices: int = 1) -> Callable[[], Any]:
    """Returns an exact local search of random unit vectors of 128 dimensions."""
    rng = np.random.default_rng(0)
    query, database = (vectors.unit(rng, number, features, 128) for number in (queries, images))
    query_mask, mask = (np.ones(x.shape[:2], bool) for x in (query, database))
    given = query, query_mask, database, mask, _KERNEL
    return lambda: local_search.similarity(*given, devices=jax.local_devices()[:devices])


def mds_call(points: int) -> Callable[[], Any]:
    """Returns a classical MDS to 128 dimensions, or as many as there are points."""
    distances = mds.random_distances(np.random.default_rng(0), points, 128)
    return lambda: classical_mds(distances, min(points, 128)).block_until_ready()


_CALLS = {"global": global_call, "local": local_call, "mds": mds_call}


def measure(curves: Curves, repeats: int) -> dict[str, dict[str, Any]]:
    """Times every curve.

    Args:
      curves: see `FULL`; the word before the comma of a name says what is timed.
      repeats: timed rounds.

    Returns:
      By curve: `grows`, `fixed`, `points` (number, seconds) and `exponent`, of the largest three.
    """
    found = {}
    for name, (fixed, grows, numbers) in curves.items():
        make = _CALLS[name.partition(",")[0]]
        calls = [make(**fixed, **{grows: number}) for number in numbers]
        timings = harness.time_in_turn(calls, repeats)
        points = [(n, timing.median) for n, timing in zip(numbers, timings, strict=True)]
        found[name] = {
            "grows": grows,
            "fixed": dict(fixed),
            "points": points,
            "exponent": harness.growth_exponent(points),
        }
    return found


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns a row for each curve, in Markdown."""
    rows = []
    for name, curve in found.items():
        fixed = ", ".join(f"{value:,} {what}" for what, value in curve["fixed"].items())
        times = ", ".join(f"{1e3 * seconds:.3g} at {n:,}" for n, seconds in curve["points"])
        rows.append([name, fixed, times, f"{curve['exponent']:.2f}"])
    return markdown(["what grows", "fixed", "ms", "exponent"], rows)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_boolean("quick", False, "Use small sizes, for a trial.", flag_values=values)
    flags.DEFINE_integer("repeats", 5, "Timed rounds.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures, prints the table and draws the curves."""
    if not values.quick:  # before the first use of a device
        jax.config.update("jax_num_cpu_devices", _DEVICES)
    found = measure(QUICK if values.quick else FULL, values.repeats)
    text = table(found) + "\n"
    curves = {f"{name}: {curve['exponent']:.2f}": curve["points"] for name, curve in found.items()}
    title = "Time by size, with fitted exponents"
    picture = line_chart(
        title, "images, queries, features, points or devices", "seconds", curves, "log"
    )
    harness.write_result(values.results, "search_growth", {"curves": found}, text, picture)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
