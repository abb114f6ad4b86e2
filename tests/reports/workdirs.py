"""Workdirs as an evaluation leaves them, without a network: drawn photographs, drawn features."""

import json
import os
from pathlib import Path

import numpy as np

from delg_jax import workdir as outputs
from delg_jax.evaluation import revisited, significance
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from tests import photographs, tiny

PLACES = 4  # queries; the database has two views of each
_FEATURES, _DIM = 30, 8
_SIZE = (96, 112)  # rows and columns of every query


def make(folder: Path, data: Path, names=None, seed: int = 0, copies: int = 1) -> Path:
    """An evaluated workdir on a data set of `photographs.make_revisited`.

    Global search finds the right images last, spatial verification first: their features are
    those of the query, moved by 8 pixels.

    Args:
      folder: the workdir.
      data: the data set, made if it is absent.
      names: of the queries, in the place of query0, query1, ...
      seed: of the rankings of local search.
      copies: of every query, so that there are many.
    """
    if not data.exists():
        photographs.make_revisited(data, PLACES)
        _rename(data, names)
        _copy(data, copies)
    truth = json.loads((data / "gnd_drawn.json").read_text())
    config = tiny.revisited_config(data).unlock()
    config.rerank.sp.inlier_threshold = 2.0
    outputs.Output.of(folder / "evaluation", config.lock(), ("eval",)).claim()
    rng = np.random.default_rng(0)
    base = [_features(rng) for _ in range(PLACES)]
    moved = [_moved(base[image // 2], 8.0 * (image % 2)) for image in range(2 * PLACES)]
    _store(folder, "queries", truth["qimlist"], base * (len(truth["gnd"]) // PLACES))
    _store(folder, "database", truth["imlist"], moved)
    rankings = _rankings(truth["gnd"], np.random.default_rng(seed))
    outputs.write_arrays(
        folder / "rankings.npz",
        {
            method if protocol == "all" else f"{method}:{protocol}": ranking
            for method, by_protocol in rankings.items()
            for protocol, ranking in by_protocol.items()
        },
    )
    outputs.write_json(folder / "metrics.json", _metrics(rankings, truth["gnd"]))
    return folder


def _rename(data: Path, names) -> None:
    path = data / "gnd_drawn.json"
    content = json.loads(path.read_text())
    for number, name in enumerate(names or []):
        (data / "jpg" / f"query{number}.jpg").rename(data / "jpg" / f"{name}.jpg")
        content["qimlist"][number] = name
    path.write_text(json.dumps(content))


def _copy(data: Path, copies: int) -> None:
    path = data / "gnd_drawn.json"
    content = json.loads(path.read_text())
    for copy in range(1, copies):
        for number in range(PLACES):
            name = f"copy{copy}_{content['qimlist'][number]}"
            os.link(
                data / "jpg" / f"{content['qimlist'][number]}.jpg", data / "jpg" / f"{name}.jpg"
            )
            content["qimlist"].append(name)
            content["gnd"].append(content["gnd"][number])
    path.write_text(json.dumps(content))


def _features(rng: np.random.Generator) -> Features:
    descriptors = rng.normal(size=(_FEATURES, _DIM)).astype(np.float32)
    return Features(
        rng.normal(size=6).astype(np.float32),
        LocalFeatures(
            locations=(rng.random((_FEATURES, 2)) * (80, 96)).astype(np.float32),
            scales=np.ones(_FEATURES, np.float32),
            scores=np.sort(rng.random(_FEATURES).astype(np.float32))[::-1],
            descriptors=descriptors / np.linalg.norm(descriptors, axis=1, keepdims=True),
            mask=np.ones(_FEATURES, bool),
        ),
    )


def _moved(features: Features, pixels: float) -> Features:
    local = features.local
    return features._replace(local=local._replace(locations=local.locations + pixels))


def _store(folder: Path, part: str, names, rows) -> None:
    layout = Layout(64, max_features=_FEATURES)
    store = FeatureStore.prepare(folder / "features" / part, names, layout)
    for run in store.missing():
        store.write(run, [rows[i] for i in run], np.full((len(run), 2), _SIZE))
    store.finish()


def _rankings(ground_truth, rng) -> dict[str, dict[str, np.ndarray]]:
    images = np.arange(2 * PLACES, dtype=np.int32)
    right = [entry["easy"] + entry["hard"] + entry["junk"] for entry in ground_truth]
    wrong = [images[~np.isin(images, found)] for found in right]
    last = np.array([[*w, *r] for w, r in zip(wrong, right, strict=True)], np.int32)
    first = np.array([[*r, *w] for w, r in zip(wrong, right, strict=True)], np.int32)
    local = np.array([rng.permutation(images) for _ in ground_truth], np.int32)
    return {
        "global": {"all": last},
        "global+sp": {name: first for name in ("all", "easy", "medium", "hard")},
        "local": {"all": local},
    }


def _metrics(rankings, ground_truth) -> dict:
    """Of the first queries; of their copies a report has to find out the precisions itself."""
    few = {m: {p: order[:PLACES] for p, order in r.items()} for m, r in rankings.items()}
    found = {m: revisited.by_protocol(r, ground_truth[:PLACES], (1, 5)) for m, r in few.items()}
    precisions = {method: score.average_precisions for method, score in found.items()}
    return {
        "methods": {method: score.metrics for method, score in found.items()},
        "average_precisions": precisions,
        "intervals": {method: score.intervals for method, score in found.items()},
        "comparisons": significance.comparisons(precisions),
        "seconds": dict.fromkeys(found, 1.0),
        "images": 2 * PLACES,
        "queries": len(ground_truth),
    }
