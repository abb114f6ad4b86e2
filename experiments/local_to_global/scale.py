"""Local-to-global search as the database grows: the queries of a workdir among distractors.

    python -m experiments.local_to_global.scale --features=WORKDIR --photographs=DIR --work=DIR \
        [--sizes=1614,10000] [--exact_up_to=10000] [--short_list=100]

WORKDIR holds the features of a revisited data set. Distractors are made of photographs of other
places, whose features are extracted with the network and the projection of WORKDIR, once. A
distractor takes two photographs: every feature of the first is moved towards the nearest feature of
the second, by a share drawn for the image, and a tenth to a half of the features are left out. So
what is alike within an image stays alike, as in windows and leaves, and features stay where
features of photographs are; copies of one photograph are no near-duplicates. `hardness` compares
the similarities of the queries to the photographs themselves and to as many distractors.

For each size: seconds and bytes of the inverted file (`search.asmk` of this version), milliseconds
a query by stage, one query at a time, mean average precision of local and local+mds through the
first `search.candidates` images, and exact search beside it up to --exact_up_to. Of local+mds, the
similarities of the short list are computed when it is searched. Descriptors are written to --work
as float16, or as int8 to halve them, for the largest size; smaller ones are its beginning. Writes
NAME.json and .md into --results.
"""

import dataclasses
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import flags

import delg_jax
from configs import default
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.data.image_files import images_below
from delg_jax.errors import UserError
from delg_jax.evaluation import revisited
from delg_jax.evaluation.cost import measured
from delg_jax.features import Extracted, extract
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings
from delg_jax.features.storage.rows import StoredRows
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings
from delg_jax.search import asmk, asmk_store, engines
from delg_jax.search.asmk import AsmkScoring, AsmkSettings
from delg_jax.search.engine_choice import kernel
from delg_jax.search.pair_graph import PairGraph

_LEAST, _MOST = 0.3, 0.7  # share of the way towards the nearest feature of another photograph
_LEFT_OUT = 0.1, 0.5  # share of the features of an image
_BLOCK = 256  # images made or encoded at a time
_WARM_UP = 2  # queries whose time is not counted


class Images(NamedTuple):
    """Descriptors float16 [N, K, D], and their mask bool [N, K]."""

    descriptors: Any
    mask: Any


def distractor(photographs: Images, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes an image of two photographs; see the top of the file.

    Args:
      photographs: at least two.
      number: of the distractor, which decides it.

    Returns:
      Descriptors float16 [K, D], unit norm, and mask bool [K].
    """
    rng = np.random.default_rng([number, 23])
    first, second = rng.choice(len(photographs.mask), 2, replace=False)
    mask = photographs.mask[first].copy()
    features = np.asarray(photographs.descriptors[first][mask], np.float32)
    others = np.asarray(photographs.descriptors[second][photographs.mask[second]], np.float32)
    if len(features) and len(others):
        nearest = others[(features @ others.T).argmax(axis=1)]
        features += rng.uniform(_LEAST, _MOST) * (nearest - features)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    features = features[rng.random(len(features)) >= rng.uniform(*_LEFT_OUT)]
    mask[:] = np.arange(len(mask)) < len(features)
    made = np.zeros(photographs.descriptors.shape[1:], np.float16)
    made[: len(features)] = features
    return made, mask


def extract_photographs(
    workdir: pathlib.Path, folder: pathlib.Path, count: int, features: int, cache: pathlib.Path
) -> Images:
    """The features of photographs by the network of a workdir; extracted once.

    Args:
      workdir: with a database.
      folder: of the photographs.
      count: evenly spaced photographs that are used, at most.
      features: of an image, K.
      cache: an `.npz` file that keeps them.

    Returns:
      Their features.
    """
    if not cache.is_file():
        paths = [folder / name for name in images_below(folder, {})]
        if len(paths) < 2:
            raise UserError("--photographs", str(folder), "must hold at least two photographs")
        model = delg_jax.load(workdir)
        chosen = np.unique(np.linspace(0, len(paths) - 1, count).astype(int))
        found: list[LocalFeatures] = []
        with Progress("photographs", len(chosen)) as progress:
            for number in chosen:
                local = model.features(paths[number]).local
                assert local is not None  # `model` has a local head: its workdir was searched
                found.append(local)
                progress.advance()
        shape = len(found), features, np.asarray(found[0].descriptors).shape[-1]
        descriptors, mask = np.zeros(shape, np.float16), np.zeros(shape[:2], bool)
        for row, local in enumerate(found):
            own = np.asarray(local.descriptors)[np.asarray(local.mask)][:features]
            descriptors[row, : len(own)], mask[row, : len(own)] = own, True
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, descriptors=descriptors, mask=mask)
    with np.load(cache) as arrays:
        return Images(arrays["descriptors"], arrays["mask"])
