"""The re-ranker of AMES itself reads what is written for it; skipped where its code is not.

`DELG_AMES` names a clone of https://github.com/pavelsuma/ames. Its weights are random here.
"""

import importlib
import json
import os
import pickle
import sys
import types
from pathlib import Path

import numpy as np
import pytest

from delg_jax.evaluation import evaluate
from delg_jax.features import extract
from delg_jax.features.formats.exported import export_features
from delg_jax.search.global_search import search
from delg_jax.training import trained_network
from tests.photographs import make_revisited
from tests.tiny import random_variables, retrieval_config

pytestmark = pytest.mark.filterwarnings("default")  # of AMES and PyTorch

IMAGES, QUERIES = 8, 4
LENGTHS = {"gallery": 20, "query": 25}  # features that AMES takes of an image; there are 30


@pytest.fixture(scope="module")
def torch():
    """PyTorch, on one thread: the network is tiny."""
    pytest.importorskip("h5py", reason="HDF5 files need h5py")
    torch = pytest.importorskip("torch", reason="PyTorch is not installed", exc_type=ImportError)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield torch
    torch.set_num_threads(threads)


@pytest.fixture
def theirs(torch, monkeypatch):
    """Modules of AMES: the network, the evaluation, and the reader of features."""
    folder = os.environ.get("DELG_AMES")
    if not folder:
        pytest.skip("DELG_AMES names no clone of AMES")
    pytest.importorskip("tqdm", reason="AMES needs tqdm")
    monkeypatch.syspath_prepend(str(Path(folder) / "src"))
    monkeypatch.setattr(np, "in1d", np.isin, raising=False)  # its name when AMES was written
    names = ("models.matcher", "utils.metrics", "utils.dataset_loader")
    yield types.SimpleNamespace(
        **{name.partition(".")[2]: importlib.import_module(name) for name in names}
    )
    for name in [n for n in sys.modules if n.partition(".")[0] in ("models", "utils")]:
        del sys.modules[name]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """Photographs of the revisited layout, and a network drawn by NumPy."""
    monkeypatch.setattr(
        trained_network, "pretrained_variables", lambda module, *_, **__: random_variables(module)
    )
    config = retrieval_config(make_revisited(tmp_path / "data"))
    config = config.copy_and_resolve_references().unlock()
    config.extract.local_scales, config.eval.methods = (1.0,), ("global",)
    return config.lock()


@pytest.fixture
def loaders(torch, theirs, config, tmp_path):
    """Its loaders of the queries and the database, from a folder that we wrote."""
    folder = export_features(config, tmp_path / "run", "ames", tmp_path / "ames")
    stores = extract(config, tmp_path / "run")
    similarities, images = search(
        stores.queries.global_descriptors(), stores.database.global_descriptors(), IMAGES
    )
    neighbours = torch.tensor(np.stack([similarities, images.astype(np.float32)]))
    (folder / "nn_delg.pkl").write_bytes(pickle.dumps(neighbours))
    truth = json.loads((tmp_path / "data" / "gnd_drawn.json").read_text())
    (folder / "gnd_roxford5k.pkl").write_bytes(pickle.dumps(truth))
    settings = types.SimpleNamespace(
        name="roxford5k",
        desc_dir=str(folder),
        test_data_dir=str(folder),
        test_gnd_file="gnd_roxford5k.pkl",
        nn_file="nn_delg.pkl",
        batch_size=3,
        sequence_len=LENGTHS["gallery"],
        query_sequence_len=LENGTHS["query"],
        pin_memory=False,
        recalls=[1, 5, 10],
    )
    return theirs.dataset_loader.get_test_loaders("delg", settings, num_workers=0)[:2]


@pytest.fixture
def model(torch, theirs, config):
    """Its network, of random weights."""
    torch.manual_seed(0)
    return theirs.matcher.AMES(
        None,
        config.model.local_dim,
        model_dim=16,
        nhead=2,
        num_encoder_layers=2,
        dim_feedforward=32,
        activation="relu",
        normalize_before=False,
        binarized=False,
    ).eval()


def reranked(theirs, model, loaders, share):
    """Its mAP of the settings Medium and Hard, in percent, with a share of global similarity."""
    metrics, _ = theirs.metrics.mean_average_precision_revisited_rerank(
        model,
        *loaders,
        loaders[0].dataset.cache_nn,
        ks=[1, 5, 10],
        lamb=[share],
        temp=[0.5],
        top_k=[IMAGES],
        gnd=loaders[0].dataset.gnd_data,
        save_scores=False,
    )
    return [metrics["M_map"], metrics["H_map"]]


def row_of(torch, features, number, most):
    """Descriptors [1, K, D] and padding [1, K] of one image as AMES takes them."""
    descriptors = np.asarray(features.descriptors[number, :most], np.float32)
    return torch.tensor(descriptors[None]), torch.tensor(~features.mask[number, :most][None])


def test_its_reranker_scores_our_features(
    torch, theirs, config, loaders, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # it writes its scores into this folder
    reranked(theirs, model, loaders, 0.5)
    scores = pickle.loads((tmp_path / "scores1_medium.pkl").read_bytes()).numpy()
    assert scores.shape == (QUERIES, IMAGES)
    stores = extract(config, tmp_path / "run")
    queries, database = (s.local_features(0) for s in (stores.queries, stores.database))
    junk = loaders[0].dataset.gnd_data
    for query in range(QUERIES):
        order = loaders[0].dataset.cache_nn[1, query].long().tolist()
        order.sort(key=lambda image: image in junk[query]["junk"])  # junk last, as it does
        for place, image in enumerate(order):
            with torch.no_grad():
                wanted = model(
                    *row_of(torch, queries, query, LENGTHS["query"]),
                    *row_of(torch, database, image, LENGTHS["gallery"]),
                )
            np.testing.assert_allclose(scores[query, place], wanted.item(), atol=1e-5)
    assert np.ptp(scores) > 1e-3


def test_its_evaluation_of_our_global_ranks_is_ours(
    theirs, config, loaders, model, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)
    found = reranked(theirs, model, loaders, 1.0)  # of the global similarity alone
    ours = evaluate(config, tmp_path / "run")["methods"]["global"]
    wanted = [ours[setting]["map"] for setting in ("medium", "hard")]
    np.testing.assert_allclose(found, wanted, atol=1e-3)
