"""What earlier versions left is read with the same numbers, or refused with what to do."""

import hashlib
import json
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from delg_jax import workdir
from delg_jax.errors import UserError
from delg_jax.evaluation.experiment import evaluate
from delg_jax.features.experiment import sections
from delg_jax.features.extractor import feature_variables
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import open_for_writing
from delg_jax.models.variables import digest
from delg_jax.reports.html import write_report
from delg_jax.search import index_store
from delg_jax.search.engine_choice import deciding_fields
from delg_jax.search.graph_store import GraphStore
from delg_jax.search.index import claimed as claimed_graph
from delg_jax.training.train import train_and_evaluate
from delg_jax.training.trained_network import load_model
from tests.folders import contents
from tests.upgrades import tiny_run
from tests.upgrades.tiny_run import (
    CHECKPOINTS,
    GRAPH,
    MDS_OF_BEFORE,
    NPZ_STORE,
    STORE,
    VERSIONS,
    config,
    narrow,
    unpacked,
)

WITH_STORE = VERSIONS[VERSIONS.index(STORE) :]
WITH_GRAPH = VERSIONS[VERSIONS.index(GRAPH) :]
RESUMABLE = VERSIONS[VERSIONS.index(CHECKPOINTS) :]


@pytest.fixture(autouse=True)
def _narrow(monkeypatch):
    narrow(monkeypatch)


def flat(variables):
    return {"/".join(p): np.asarray(x) for p, x in traverse_util.flatten_dict(variables).items()}


@pytest.mark.parametrize("version", VERSIONS)
def test_weights_are_those_that_were_saved(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    variables = load_model(config(), root)[1]
    found = hashlib.sha256()
    for name, values in sorted(flat(variables).items()):
        found.update(name.encode() + np.ascontiguousarray(values).tobytes())
    assert found.hexdigest() == str(numbers["variables"])
    # The name by which features and index say of what weights they are
    stored = json.loads((root / "features" / "database" / "config.json").read_text())
    assert digest(feature_variables(variables)) == stored["extra"]["weights"]


def claim(root, names):
    """As extraction claims the database's store."""
    folder = root / "features" / "database"
    weights = json.loads((folder / "config.json").read_text())["extra"]["weights"]
    output = workdir.Output.of(folder, config(), sections(config()), {"weights": weights})
    layout, memory = Layout.of(config().extract), config().data.memory_megabytes
    return open_for_writing(output, layout, memory, names)


@pytest.mark.parametrize("version", WITH_STORE)
def test_features_are_those_that_were_stored(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    before = contents(root)
    with claim(root, numbers["names"].tolist()) as store:
        assert store.missing() == []
        assert store.names == numbers["names"].tolist()
        np.testing.assert_array_equal(store.global_descriptors(), numbers["global"])
        local = store.local_features(8)._asdict()
    for name, values in local.items():
        np.testing.assert_array_equal(values, numbers[f"local/{name}"], strict=True)
    assert contents(root) == before


@pytest.mark.parametrize("version", [NPZ_STORE, CHECKPOINTS])
def test_a_store_of_npz_files_is_refused_and_left(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    names = "format 1, .* 2; .*--overwrite"
    with pytest.raises(UserError, match=names), claim(root, numbers["names"].tolist()):
        pass
    with pytest.raises(UserError, match=names):
        FeatureStore(root / "features" / "database")
    assert (root / "features" / "database" / "chunk_000000.npz").is_file()


@pytest.mark.parametrize("version", WITH_GRAPH)
def test_the_graph_is_that_which_was_stored(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    before = contents(root)
    store = GraphStore(root / "index" / "graph", numbers["names"].tolist())
    weights = json.loads((store.folder / "config.json").read_text())["extra"]["weights"]
    decided_by = (*sections(config()), *deciding_fields(config().search))
    output = workdir.Output.of(store.folder, config(), decided_by, {"weights": weights})
    assert output.is_there()
    search = config().search
    with claimed_graph(store, output, search.graph_neighbours, search.graph_block):
        found = store.graph()
    for name in ("indices", "similarities"):
        values = getattr(found, name)
        np.testing.assert_array_equal(values, numbers[f"graph/{name}"], strict=True)
    assert contents(root) == before


@pytest.mark.parametrize("version", WITH_GRAPH)
def test_the_index_of_the_engine_cann_is_read(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    found = index_store.load(root / "index" / "cann" / "index")
    found.check()
    assert found.count == len(numbers["names"])


@pytest.mark.parametrize("version", WITH_GRAPH)
def test_the_index_of_the_engine_ivf_under_its_old_name_is_refused(version, tmp_path):
    root, _ = unpacked(version, tmp_path)
    with pytest.raises(UserError, match="'cells'.*delete"):
        index_store.load(root / "index" / "cells" / "index")


def test_a_store_of_a_newer_version_is_refused_with_what_to_do(tmp_path):
    root, numbers = unpacked(VERSIONS[-1], tmp_path)
    path = root / "features" / "database" / "store.json"
    workdir.write_json(path, {"format": 3, "layout": {"shape": "another"}})
    names = "format 3, .* 2; .*--overwrite"
    with pytest.raises(UserError, match=names), claim(root, numbers["names"].tolist()):
        pass


@pytest.mark.parametrize("version", VERSIONS)
def test_stored_measurements_are_reported(version, tmp_path):
    root, _ = unpacked(version, tmp_path / "run")
    text = write_report([root], tmp_path / "report.html").read_text()
    metrics = json.loads((root / "metrics.json").read_text())
    assert f"{metrics['methods']['local']['medium']['map']:.2f}" in text


def test_a_run_of_another_optimizer_is_refused_with_what_to_do(tmp_path):
    root, _ = unpacked(NPZ_STORE, tmp_path)
    names = r"^checkpoint = '.*/checkpoints': .*resume .*config\.model\.checkpoint"
    now = config(data__reduced_decode=False, train__norm_momentum=0.9, train__learning_rate=0.02)
    with pytest.raises(UserError, match=names) as caught:
        train_and_evaluate(now, root)
    assert "\n" not in str(caught.value)
    # What reading pictures smaller changes is said before
    with pytest.raises(UserError, match=r"config\.data\.reduced_decode: False -> True"):
        train_and_evaluate(config(), root)


@pytest.mark.slow
@pytest.mark.parametrize("version", RESUMABLE)
def test_training_resumes_to_the_same_weights(version, tmp_path):
    root, numbers = unpacked(version, tmp_path)
    words = [sys.executable, "-m", "tests.upgrades", "train", f"--workdir={root}"]
    subprocess.run(words, check=True, cwd=tiny_run.FOLDER.parents[1])
    expected = {n.removeprefix("end/"): v for n, v in numbers.items() if n.startswith("end/")}
    found = flat(load_model(config(), root)[1])
    norms = jax.tree.map(lambda x: np.linalg.norm(x.astype(np.float64).ravel()), found)
    assert set(norms) == set(expected)
    for name, norm in norms.items():
        np.testing.assert_allclose(norm, expected[name], rtol=1e-3, atol=1e-5, err_msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("version", WITH_STORE)
def test_evaluation_extracts_nothing_and_searches_give_the_same_rankings(version, tmp_path):
    root, _ = unpacked(version, tmp_path)
    before = dict(np.load(root / "rankings.npz"))
    stored = contents(root / "features")
    # The graph had no blocks when the store was new
    changes = {"search__graph_block": 32} if version == STORE else {}
    evaluate(config(**MDS_OF_BEFORE, **changes), root)
    after = dict(np.load(root / "rankings.npz"))
    found = contents(root / "features")
    assert {path: found[path] for path in stored} == stored
    # Earlier versions kept no origins of the images, and locked other files
    added = {path for path in found.keys() - stored.keys() if "/origins/" not in path}
    assert added <= {".database.lock", ".queries.lock"}
    # Re-rankings draw other samples and weigh similarities otherwise than earlier versions
    for name in ("global", "local"):
        np.testing.assert_array_equal(after[name], before[name], err_msg=name)
    assert after.keys() == before.keys()
