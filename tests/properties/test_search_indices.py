import shutil

import numpy as np
import pytest
from hypothesis import strategies as st

from delg_jax import workdir
from delg_jax.errors import UserError
from delg_jax.search import cann, index_store, ivf
from delg_jax.search.cann import GridSettings
from delg_jax.search.graph_store import GraphStore
from delg_jax.search.ivf import IvfSettings
from delg_jax.search.kernels import SimilarityKernel
from tests import stores, tiny
from tests.properties.cases import cases, hold, outcome
from tests.properties.mutations import changed_json, damaged

_IMAGES = 6


@pytest.fixture(scope="module")
def images():
    vectors = np.random.default_rng(4).normal(size=(_IMAGES, 4, 5)).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True), np.ones((_IMAGES, 4), bool)


def _changed(case, whole):
    """A copy of a folder, of which one file is damaged."""
    folder = whole.with_name("changed")
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(whole, folder)
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    path = case.draw(st.sampled_from(files))
    if path.suffix == ".json":
        path.write_text(case.draw(changed_json(path.read_text())))
    else:
        path.write_bytes(case.draw(damaged((path.read_bytes(),))))
    return folder


def _cells(images):
    return ivf.build(*images, IvfSettings(3, seed=1))


def _cann(images):
    return cann.build(*images, GridSettings(grids=2, axes=3, approximation=2.0, seed=3))


def _found(folder, images):
    index = index_store.load(folder)
    if isinstance(index, cann.CannIndex):
        return cann.similarity(index, *images)
    return ivf.similarity(index, *images, SimilarityKernel("threshold", 0.2), 2)


@cases(60)
@pytest.mark.parametrize("build", [_cells, _cann])
def test_a_changed_index_is_refused_or_finds_the_same(images, tmp_path, build, examples):
    whole = tmp_path / "whole"
    index_store.save(build(images), whole)
    expected = _found(whole, images)

    def check(case):
        folder = _changed(case, whole)
        found = outcome(lambda: _found(folder, images))
        if not isinstance(found, UserError):
            np.testing.assert_array_equal(found, expected)

    hold(examples, check, st.data())


@cases(80)
def test_a_changed_graph_is_refused_or_the_same(tmp_path, examples):
    rng = np.random.default_rng(5)
    lists = rng.random((7, 4)).astype(np.float32), rng.integers(0, 7, (7, 4)).astype(np.int32)
    whole = tmp_path / "whole"
    store = GraphStore(whole, stores.names(7))
    store.start(4, 3)
    for run in store.missing():
        store.write(run, tuple(part[run.start : run.stop] for part in lists))
    store.finish()

    def check(case):
        folder = _changed(case, whole)
        graph = outcome(lambda: GraphStore(folder, stores.names(7)).graph())
        if not isinstance(graph, UserError):
            np.testing.assert_array_equal(graph.similarities, lists[0])
            np.testing.assert_array_equal(graph.indices, lists[1])

    hold(examples, check, st.data())


@cases(60)
def test_a_changed_configuration_is_read_or_refused(tmp_path, examples):
    config = tiny.retrieval_config(tmp_path)
    workdir.Output.of(tmp_path / "whole", config, ("model", "extract")).claim()
    whole = (tmp_path / "whole" / workdir.CONFIG_FILE).read_text()
    folder = tmp_path / "changed"
    folder.mkdir()

    def check(case):
        (folder / workdir.CONFIG_FILE).write_text(case.draw(changed_json(whole)))
        outcome(lambda: workdir.stored_config(folder))
        outcome(lambda: workdir.Output.of(folder, config, ("model", "extract")).claim())

    hold(examples, check, st.data())
