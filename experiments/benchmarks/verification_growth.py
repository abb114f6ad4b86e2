"""How the time of spatial verification grows with features, hypotheses and candidates.

    python -m experiments.benchmarks.verification_growth

Verifies one query against candidates that show half of its features, a third of these consistent
with one affine map. One number grows, the others stay at 1000 features, 1000 hypotheses and 100
candidates. Descriptors are compared as floats and, at that size, as signs by population count or as
products. Times are medians after a warm-up. Writes verification_growth.json, .md and .svg into
--results.
"""

import dataclasses
import sys
from collections.abc import Sequence

import jax
import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.features import LocalFeatures
from delg_jax.reports.charts import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify

_DIM, _SIDE = 128, 1000.0  # pixels


@dataclasses.dataclass(frozen=True)
class Problem:
    """The size of one verification."""

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
BASE = {"full": Problem(), "quick": Problem(features=12, hypotheses=10, candidates=2)}
DESCRIPTORS = {
    "float": {},
    "one bit, population count": {"one_bit": True, "hamming": "popcount"},
    "one bit, products": {"one_bit": True, "hamming": "products"},
}


def plant(problem: Problem, seed: int = 0) -> tuple[LocalFeatures, LocalFeatures]:
    """Makes a query, and candidates with every second of its features, a third of these consistent.

    Args:
      problem: its size.
      seed: of the random numbers.

    Returns:
      Features of the query [K, ...] and of the candidates [M, K, ...].
    """
    rng = np.random.default_rng(seed)
    query = _unit_vectors(rng, problem.features)
    places = rng.uniform(0, _SIDE, (problem.features, 2)).astype(np.float32)
    images = _unit_vectors(rng, problem.candidates, problem.features)
    images[:, ::2] = query[None, ::2]
    moved = rng.uniform(0, _SIDE, (problem.candidates, problem.features, 2)).astype(np.float32)
    moved[:, ::6] = 0.8 * places[None, ::6] + 30
    return _features(query, places), _features(images, moved)


def seconds(problem: Problem, settings: SpatialSettings, repeats: int) -> float:
    """Returns the median seconds of a query after a warm-up."""
    query, candidates = plant(problem)
    settings = dataclasses.replace(settings, hypotheses=problem.hypotheses)
    ids, key = np.arange(problem.candidates), jax.random.key(0)
    (timing,) = harness.time_in_turn(
        [lambda: verify(query, candidates, ids, key, settings)], repeats
    )
    return timing.median


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_enum("size", "full", list(GROWTH), "quick for tests.", flag_values=values)
    flags.DEFINE_integer("repeats", 3, "Timed rounds.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


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
        for fit in [harness.growth_exponent(points)]
    ]
    header = ["what grows", "numbers", "ms a query", "exponent, largest"]
    pairs = [[kind, f"{1e3 * t / base.candidates:.2f}"] for kind, t in kinds.items()]
    text = markdown(header, rows) + "\n\n" + markdown(["descriptors", "ms a pair"], pairs) + "\n"
    content = {"base": dataclasses.asdict(base), "growth": found, "descriptors": kinds}
    curves = {f: [(n, 1e3 * t) for n, t in points] for f, points in found.items()}
    plot = line_chart(
        "Spatial verification", "features, hypotheses, candidates", "ms", curves, "log"
    )
    harness.write_result(values.results, "verification_growth", content, text, plot)
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
