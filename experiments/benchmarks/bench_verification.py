"""How the time of spatial verification grows with features, hypotheses and candidates.

    python -m experiments.benchmarks.bench_verification

One query against candidates that show half of its features, a third of these from its own view. One
number grows, the others stay at 1000 features, 1000 hypotheses and 100 candidates; descriptors are
floats, and the signs of floats compared by population count or as products. Times are medians after
a warm-up. Writes bench_verification.json, .md and .svg into --results.
"""

import dataclasses
import pathlib
import statistics
import sys
import time
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.features import LocalFeatures
from delg_jax.reports.line_chart import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify

_DIM, _SIDE = 128, 1000.0  # pixels
_FITTED = 3  # sizes, the largest, to which an exponent is fitted


@dataclasses.dataclass(frozen=True)
class Work:
    """What one query asks of spatial verification."""

    features: int = 1000
    hypotheses: int = 1000
    candidates: int = 100


GROWTH = {
    "full": {
        "features": (125, 250, 500, 1000, 2000),
        "hypotheses": (125, 250, 500, 1000, 2000, 4000),
        "candidates": (10, 25, 50, 100, 200, 400),
    },
    "quick": {"features": (8, 16), "hypotheses": (10, 20), "candidates": (1, 2)},
}
BASE = {"full": Work(), "quick": Work(features=12, hypotheses=10, candidates=2)}
DESCRIPTORS = {
    "float": {},
    "one bit, population count": {"one_bit": True, "hamming": "popcount"},
    "one bit, products": {"one_bit": True, "hamming": "products"},
}


def plant(work: Work, seed: int = 0) -> tuple[LocalFeatures, LocalFeatures]:
    """A query, and candidates with every second of its features, a third of these seen alike.

    Args:
      work: how many features and candidates.
      seed: of the random numbers.

    Returns:
      Features of the query [K, ...] and of the candidates [M, K, ...].
    """
    rng = np.random.default_rng(seed)
    query = _unit_vectors(rng, work.features)
    places = rng.uniform(0, _SIDE, (work.features, 2)).astype(np.float32)
    images = _unit_vectors(rng, work.candidates, work.features)
    images[:, ::2] = query[None, ::2]
    moved = rng.uniform(0, _SIDE, (work.candidates, work.features, 2)).astype(np.float32)
    moved[:, ::6] = 0.8 * places[None, ::6] + 30
    return _features(query, places), _features(images, moved)


def seconds(work: Work, settings: SpatialSettings, repeats: int) -> float:
    """Median time of a query after a warm-up."""
    query, candidates = plant(work)
    settings = dataclasses.replace(settings, hypotheses=work.hypotheses)
    times = []
    for _ in range(repeats + 1):
        start = time.perf_counter()
        verify(query, candidates, np.arange(work.candidates), jax.random.key(0), settings)
        times.append(time.perf_counter() - start)
    return statistics.median(times[1:])


def exponent(points: Sequence[tuple[int, float]]) -> float:
    """Exponent e of time ~ number^e, fitted to the largest numbers."""
    numbers, times = np.log(np.array(points[-_FITTED:], np.float64)).T
    return float(np.polyfit(numbers, times, 1)[0])


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_enum("size", "full", list(GROWTH), "quick for tests.", flag_values=values)
    flags.DEFINE_integer("repeats", 3, "Timed calls.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Of table and plot.")


def run(values: flags.FlagValues) -> None:
    """Measures, writes table and plot, and prints the table."""
    base = BASE[values.size]
    found = {
        field: [
            (n, seconds(dataclasses.replace(base, **{field: n}), SpatialSettings(), values.repeats))
            for n in numbers
        ]
        for field, numbers in GROWTH[values.size].items()
    }
    kinds = {
        kind: seconds(base, SpatialSettings(**fields), values.repeats)
        for kind, fields in DESCRIPTORS.items()
    }
    rows = [
        [field, " ".join(f"{n:,}" for n, _ in points), _milliseconds(points), f"{fit:.2f}"]
        for field, points in found.items()
        for fit in [exponent(points)]
    ]
    header = ["what grows", "numbers", "ms a query", "exponent, largest"]
    pairs = [[kind, f"{1e3 * t / base.candidates:.2f}"] for kind, t in kinds.items()]
    text = markdown(header, rows) + "\n\n" + markdown(["descriptors", "ms a pair"], pairs) + "\n"
    results, name = pathlib.Path(values.results), "bench_verification"
    content = {"base": dataclasses.asdict(base), "growth": found, "descriptors": kinds}
    workdir.write_json(results / f"{name}.json", content)
    workdir.write_text(results / f"{name}.md", text)
    curves = {f: [(n, 1e3 * t) for n, t in points] for f, points in found.items()}
    plot = line_chart(
        "Spatial verification", "features, hypotheses, candidates", "ms", curves, "log"
    )
    workdir.write_text(results / f"{name}.svg", plot)
    print(text, end="")


def _milliseconds(points: Sequence[tuple[int, float]]) -> str:
    return " ".join(f"{1e3 * t:.1f}" for _, t in points)


def _unit_vectors(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal((*shape, _DIM), np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _features(descriptors: np.ndarray, locations: np.ndarray) -> LocalFeatures:
    ones = np.ones(descriptors.shape[:-1], np.float32)
    return LocalFeatures(locations, ones, ones, descriptors, ones.astype(bool))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
