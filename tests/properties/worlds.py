"""Tiny searches without a network: stores of given features, evaluated by every method."""

from collections.abc import Sequence
from pathlib import Path

import ml_collections
import numpy as np

import delg_jax.evaluation.experiment as evaluation_of_experiment
from configs import default
from delg_jax.data.sources import FileSource, RetrievalData
from delg_jax.features.experiment import Extracted
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.store import FeatureStore
from delg_jax.retrieval.methods import METHODS
from tests import stores

# The packages have functions of these names, which hide the modules

FEATURES, LOCAL_DIM, GLOBAL_DIM = 4, 8, 6


def small_config() -> ml_collections.ConfigDict:
    """All methods, with the least work each."""
    config = default.get_config()
    config.eval.methods = METHODS
    config.rerank.sp.hypotheses = 8
    config.rerank.sp.min_inliers = 0
    config.search.cann.grids = config.search.ivf.count = config.search.ivf.probes = 2
    config.search.graph_neighbours, config.rerank.mds.dim = 5, 2
    config.rerank.diffusion.neighbours = 4
    config.rerank.mds.iterations = config.rerank.diffusion.iterations = 2
    return config.lock()


def image(
    rng: np.random.Generator, count: int = FEATURES, local: float = 1.0, pooled: float = 1.0
) -> Features:
    """An image with `count` features, whose descriptors have these norms."""
    drawn = stores.features(rng, count, FEATURES, LOCAL_DIM)
    found = drawn.local
    locations = rng.uniform(0, 200, (FEATURES, 2)).astype(np.float32)
    descriptors = (local * found.descriptors).astype(np.float32)
    changed = LocalFeatures(locations, found.scales + 1, found.scores, descriptors, found.mask)
    unit = drawn.global_descriptor / np.linalg.norm(drawn.global_descriptor)
    return Features((pooled * unit).astype(np.float32), changed)


def extracted(
    folder: Path, database: Sequence[Features | str], queries: Sequence[Features | str]
) -> Extracted:
    """Stores of these features; the first image is the answer of every query."""
    parts = [
        _store(folder / name, rows) for name, rows in (("database", database), ("queries", queries))
    ]
    sources = [FileSource(folder, part.names, np.full(len(part), -1)) for part in parts]
    answer = {"bbx": [0, 0, 1, 1], "easy": [0], "hard": [], "junk": []}
    data = RetrievalData(*sources, [answer for _ in queries])
    return Extracted(data, *parts, "digest")


def _store(folder: Path, rows: Sequence[Features | str]) -> FeatureStore:
    return stores.fill(folder, rows, chunk=2, max_features=FEATURES)


def evaluate(
    monkeypatch, config: ml_collections.ConfigDict, found: Extracted, workdir: Path
) -> tuple[dict, dict[str, np.ndarray]]:
    """Metrics and rankings of `delg evaluate` on these features."""
    monkeypatch.setattr(evaluation_of_experiment, "extract", lambda *_: found)
    metrics = evaluation_of_experiment.evaluate(config, workdir)
    with np.load(workdir / "rankings.npz") as arrays:
        return metrics, dict(arrays)


def require_sound(metrics: dict, rankings: dict[str, np.ndarray], queries: int, count: int) -> None:
    """Every ranking has every image once, and every number is a share."""
    for name, ranks in rankings.items():
        assert ranks.shape == (queries, count), name
        assert (np.sort(ranks, axis=1) == np.arange(count)[None, :]).all(), name
    for protocols in metrics["methods"].values():
        for values in protocols.values():
            assert all(value is None or 0 <= value <= 100 for value in values.values())
