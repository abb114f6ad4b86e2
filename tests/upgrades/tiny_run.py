"""The run whose outputs the archives beside this file hold, each left by one version.

An archive is named by the commit that made it: a workdir that was trained to step 4, of which
checkpoint 2 is kept, extracted, indexed and evaluated with `config` on a network two channels wide,
and `numbers.npz`, which holds what that version read of its own outputs.
"""

import tarfile
from pathlib import Path

import ml_collections
import numpy as np
import pytest

from configs import quickstart
from delg_jax import configuration
from delg_jax.models import resnet
from tests.tiny import change_architecture

FOLDER = Path(__file__).parent
# The store as .npz files; checkpoints of today's kind; the store on TensorStore; the graph on disk
NPZ_STORE, CHECKPOINTS, STORE, GRAPH = "95c95fa", "caef06c", "cbeba51", "e72c83d"
VERSIONS = (NPZ_STORE, CHECKPOINTS, STORE, GRAPH, "f6c929b")

# Fields of the quickstart that had other values when the archives were made
TRAINING_OF_BEFORE = {
    "train__norm_momentum": 0.9,
    "train__learning_rate": 0.02,
    "model__pretrained_source": "torchvision",
}
MDS_OF_BEFORE = {
    f"rerank__mds__{name}": value
    for name, value in {
        **{"method": "classical", "contrast": 1.0, "scale_neighbours": 0, "keep_first": 0},
        **{"neighbours": 0, "beta": 0.3, "weight": 0.5},
    }.items()
}

NARROW = ((1, 1, 1, 1), False, 2)  # the tiny network, two channels wide
_OVERRIDES = {
    "model.global_dim": 8,
    "model.local_dim": 8,
    "model.attention_dim": 8,
    "train.tensorboard": False,
    "train.best_metric": "",
    "extract.local_scales": (1.0,),
    "extract.global_scales": (1.0,),
    "extract.max_features": 8,
    "extract.chunk_images": 8,
    "search.max_features": 8,
    "search.graph_neighbours": 5,
    "search.graph_block": 16,
    "rerank.sp.hypotheses": 20,
    "rerank.sp.short_list": 3,
    "rerank.sp.min_inliers": 4,
    "rerank.mds.short_list": 5,
    "rerank.mds.dim": 4,
}


def config(**changes: object) -> ml_collections.ConfigDict:
    """The run's configuration; changes by path, with two underscores for a dot."""
    more = {path.replace("__", "."): value for path, value in changes.items()}
    return configuration.override(quickstart.get_config("smoke"), {**_OVERRIDES, **more})


def narrow(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes the tiny network as narrow as that of the archives."""
    change_architecture(monkeypatch, resnet.ARCHITECTURES, "tiny", NARROW)


def unpacked(version: str, folder: Path) -> tuple[Path, dict[str, np.ndarray]]:
    """The workdir that a version left, in a new place, and the numbers that it read."""
    with tarfile.open(FOLDER / f"{version}.tar.xz") as archive:
        archive.extractall(folder, filter="data")
    with np.load(folder / "numbers.npz") as numbers:
        return folder, dict(numbers)
