"""A graph is the same whatever interrupts its building, however many processes or steps it has."""

import contextlib

import numpy as np
import pytest

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.locks import exclusive
from delg_jax.search import graph_building, local_search
from delg_jax.search.engines import exact
from delg_jax.search.graph_building import claimed, fill, global_searches, local_searches, rows_from
from delg_jax.search.graph_store import GraphStore
from delg_jax.search.kernels import SimilarityKernel
from tests.folders import contents
from tests.holding import held
from tests.stores import names
from tests.tiny import retrieval_config

IMAGES, KEPT, BLOCK = 23, 6, 4


@pytest.fixture
def config(tmp_path):
    config = retrieval_config(tmp_path).copy_and_resolve_references().unlock()
    config.search.graph_neighbours, config.search.graph_block = KEPT, BLOCK
    return config


@pytest.fixture
def descriptors(rng):
    found = rng.normal(size=(IMAGES, 5)).astype(np.float32)
    found[[7, 9, 20]] = found[1]  # equal images, of which the lower index comes first
    found[4] = 0  # like nothing
    return found


def make(config, folder, descriptors, overwrite=False, changed=lambda search: search, **options):
    """Builds the graph of descriptors, or resumes it; `weights` and `extend` may differ."""
    store = GraphStore(folder, names(len(descriptors)), config.data.memory_megabytes)
    searches = global_searches(descriptors, KEPT, BLOCK, 3)
    weights = options.pop("weights", "digest")
    with claimed(store, config, ("search",), weights, overwrite):
        if not store.is_whole():
            fill(store, lambda first: changed(searches(first)), KEPT, "test", **options)
    return store.graph()


@pytest.fixture
def undisturbed(config, tmp_path, descriptors):
    make(config, tmp_path / "undisturbed", descriptors)
    return contents(tmp_path / "undisturbed")


def test_rows_are_the_best_of_all(config, tmp_path, descriptors):
    graph = make(config, tmp_path / "graph", descriptors)
    similarities = descriptors @ descriptors.T
    order = np.argsort(-np.round(similarities, 5), axis=1, kind="stable")[:, :KEPT]
    np.testing.assert_array_equal(graph.indices, order)
    expected = np.take_along_axis(similarities, order, axis=1)
    np.testing.assert_allclose(graph.similarities, expected, atol=1e-5)


def contents_of_first(config, folder, descriptors):
    make(config, folder, descriptors)
    return contents(folder)


class Killed(BaseException):
    """Stands for the end of the process."""


def killed_after(count):
    """A search that works for so many blocks."""

    def changed(search):
        def best(images):
            nonlocal count
            if not count:
                raise Killed
            count -= 1
            return search(images)

        return best

    return changed


@pytest.mark.parametrize("counts", [(0, 1, 3), (5,), (2, 2)])
def test_a_killed_job_resumes_to_the_same_bytes(config, tmp_path, descriptors, undisturbed, counts):
    folder, missing = tmp_path / "graph", 6
    for count in counts:
        with pytest.raises(Killed):
            make(config, folder, descriptors, changed=killed_after(count))
        missing -= count
        assert len(GraphStore(folder, names(IMAGES)).missing()) == missing
        assert not GraphStore(folder, names(IMAGES)).is_whole()
    done = []
    make(config, folder, descriptors, changed=lambda s: lambda run: done.append(run) or s(run))
    assert len(done) == missing
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("old", [1, 4, 5, 17, 22])
def test_new_images_complete_the_graph(config, tmp_path, descriptors, undisturbed, old):
    folder, searched = tmp_path / "graph", []
    make(config, folder, descriptors[:old])
    make(config, folder, descriptors, changed=lambda s: lambda run: searched.append(run) or s(run))
    assert len(searched) == 6
    graph = GraphStore(folder, names(IMAGES)).graph()
    scratch = GraphStore(tmp_path / "undisturbed", names(IMAGES)).graph()
    np.testing.assert_array_equal(graph.indices, scratch.indices)
    np.testing.assert_allclose(graph.similarities, scratch.similarities, atol=1e-6)
    assert contents(folder).keys() == undisturbed.keys()


def test_old_images_are_searched_against_the_new_alone(config, tmp_path, descriptors, monkeypatch):
    make(config, tmp_path / "graph", descriptors[:17])
    asked, original = [], global_searches

    def noting(rows, *arguments):
        searches = original(rows, *arguments)

        def against(first):
            return lambda run: asked.append((first, run.start)) or searches(first)(run)

        return against

    monkeypatch.setitem(globals(), "global_searches", noting)
    make(config, tmp_path / "graph", descriptors)
    assert asked == [(17, 0), (17, 4), (17, 8), (17, 12), (0, 16), (0, 20)]
    asked.clear()
    make(config, tmp_path / "other", descriptors[:17])
    make(config, tmp_path / "other", descriptors, extend=False)
    assert {first for first, _ in asked} == {0}


def test_a_killed_completion_keeps_the_old_graph(config, tmp_path, descriptors):
    folder = tmp_path / "graph"
    before = make(config, folder, descriptors[:17]).indices
    make(config, tmp_path / "other", descriptors[:17])
    make(config, tmp_path / "other", descriptors)
    with pytest.raises(Killed):
        make(config, folder, descriptors, changed=killed_after(3))
    np.testing.assert_array_equal(GraphStore(folder, names(17)).graph().indices, before)
    make(config, folder, descriptors)
    assert contents(folder) == contents(tmp_path / "other")


def test_two_processes_make_the_graph_of_one(
    config, tmp_path, descriptors, undisturbed, monkeypatch
):
    folder, done = tmp_path / "graph", {0: [], 1: []}
    with pytest.raises(Killed):  # makes the arrays
        make(config, folder, descriptors, changed=killed_after(0))
    everything = GraphStore(folder, names(IMAGES)).missing()
    finish = GraphStore.finish
    monkeypatch.setattr(GraphStore, "finish", lambda store: None)  # after both have written
    missing = GraphStore.missing
    for number in (1, 0):
        monkeypatch.setattr(distributed, "shard", lambda number=number: (number, 2))
        monkeypatch.setattr(GraphStore, "missing", lambda store: everything)
        store = GraphStore(folder, names(IMAGES))
        search = global_searches(descriptors, KEPT, BLOCK, 3)(0)

        def noting(images, number=number, search=search):
            done[number].append(images.start)
            return search(images)

        fill(store, lambda first, noting=noting: noting, KEPT, "test")
    monkeypatch.setattr(GraphStore, "missing", missing)
    finish(store)
    assert done == {0: [0, 8, 16], 1: [4, 12, 20]}
    assert contents(folder) == undisturbed


def test_only_the_first_process_claims_and_finishes(config, tmp_path, descriptors, monkeypatch):
    folder = tmp_path / "graph"
    with pytest.raises(Killed):
        make(config, folder, descriptors, changed=killed_after(4))
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with held(folder), pytest.raises(UserError, match="is incomplete"):
        make(config, folder, descriptors)
    store = GraphStore(folder, names(IMAGES))
    assert store.missing() == []
    assert not (folder / "graph.json").exists()


def test_a_job_is_refused_as_one(config, tmp_path, descriptors, monkeypatch):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "agree", lambda yes, name: False)
    with pytest.raises(UserError, match="similarity graph = .* was refused to process 0"):
        make(config, tmp_path / "graph", descriptors)
    assert not (tmp_path / "graph").exists()


def test_a_second_job_is_refused_and_a_reader_is_not(config, tmp_path, descriptors):
    folder = tmp_path / "graph"
    with held(folder):
        with pytest.raises(UserError, match="^similarity graph = .* is being written by another"):
            make(config, folder, descriptors)
        assert not folder.exists()
    make(config, folder, descriptors[:17])
    before = contents(folder)
    with held(folder):
        make(config, folder, descriptors[:17])
        with pytest.raises(UserError, match="is being written by another"):
            make(config, folder, descriptors)
    assert contents(folder) == before
    with contextlib.suppress(Killed):
        make(config, folder, descriptors, changed=killed_after(1))
    with exclusive(folder):  # given back
        pass


def test_another_configuration_is_refused_and_other_images_are_searched_again(
    config, tmp_path, descriptors, caplog
):
    folder = tmp_path / "graph"
    make(config, folder, descriptors)
    before = contents(folder)
    with pytest.raises(UserError, match="weights: 'digest' -> 'other'"):
        make(config, folder, descriptors, weights="other")
    assert contents(folder) == before
    assert len(make(config, folder, descriptors[:9])) == 9
    assert (
        f"{folder}: is of other features, or of an earlier version; built again" in caplog.messages
    )
    assert contents(folder) == contents_of_first(config, tmp_path / "nine", descriptors[:9])
    assert len(make(config, folder, descriptors, overwrite=True, weights="other")) == IMAGES


@pytest.mark.parametrize("file", ["graph.json", "*/indices/c.1.0", "*/similarities/zarr.json"])
def test_a_damaged_index_is_rebuilt_only_if_asked_for(
    config, tmp_path, descriptors, undisturbed, file
):
    folder = tmp_path / "graph"
    make(config, folder, descriptors)
    next(folder.glob(file)).write_text("rubbish")
    with pytest.raises(UserError, match="^similarity graph = .*--overwrite"):
        make(config, folder, descriptors)
    make(config, folder, descriptors, overwrite=True)
    assert contents(folder) == undisturbed


def test_a_graph_larger_than_the_memory_is_completed_from_disk(
    config, tmp_path, descriptors, undisturbed
):
    config.data.memory_megabytes = 0
    make(config, tmp_path / "graph", descriptors[:17])
    graph = make(config, tmp_path / "graph", descriptors)
    scratch = GraphStore(tmp_path / "undisturbed", names(IMAGES)).graph()
    np.testing.assert_array_equal(graph.nearest(KEPT)[1], scratch.indices)


def test_progress_counts_what_was_there(config, tmp_path, descriptors, monkeypatch):
    noted = []

    class Progress(contextlib.nullcontext):
        def __init__(self, title, total, done):
            super().__init__(self)
            noted.append((title, total, done))

        def advance(self, count):
            noted.append(count)

    monkeypatch.setattr(graph_building, "Progress", Progress)
    with pytest.raises(Killed):
        make(config, tmp_path / "graph", descriptors, changed=killed_after(4))
    make(config, tmp_path / "graph", descriptors)
    assert noted == [("test", IMAGES, 0), 4, 4, 4, 4, ("test", IMAGES, 16), 4, 3]


KERNEL = SimilarityKernel("threshold", threshold=0.2)


def engine(features):
    return exact(features.descriptors, features.mask, KERNEL, 3)


def best(similarities, first, count):
    order = first + np.argsort(-similarities[:, first:], axis=1, kind="stable")[:, :count]
    return np.take_along_axis(similarities, order, axis=1), order


def on_disk(array):
    return StoredRows(lambda wanted: array[wanted], array.shape, array.dtype)


@pytest.fixture
def database(rng):
    descriptors = rng.normal(size=(11, 4, 6)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    mask = rng.random((11, 4)) < 0.8
    mask[:, 0] = True
    mask[4] = False
    zeros = np.zeros((11, 4), np.float32)
    return LocalFeatures(np.zeros((11, 4, 2), np.float32), zeros, zeros, descriptors, mask)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(
    ("first", "count", "block"), [(0, 5, 4), (0, 99, 32), (7, 3, 4), (8, 9, 2)]
)
def test_local_lists_are_the_best_of_the_local_search(database, first, count, block, disk):
    features = (database.descriptors, database.mask)
    expected = best(local_search.similarity(*features, *features, KERNEL), first, count)
    if disk:
        database = LocalFeatures(*map(on_disk, database))
    search = local_searches(database, engine, count, block)(first)
    for images in (range(0, min(block, 11)), range(8, 8 + min(block, 3))):
        similarities, indices = search(images)
        np.testing.assert_allclose(similarities, expected[0][images.start : images.stop], atol=1e-6)
        np.testing.assert_array_equal(indices, expected[1][images.start : images.stop])
        assert indices.dtype == np.int32


def test_of_equal_images_the_lower_index_comes_first(database):
    same = LocalFeatures(*(np.ones_like(field) for field in database))
    assert local_searches(same, engine, 3, 2)(0)(range(4, 6))[1].tolist() == [[0, 1, 2]] * 2


def test_an_image_without_features_has_similarity_zero(database):
    similarities, _ = local_searches(database, engine, 11, 11)(0)(range(0, 11))
    assert (similarities[4] == 0).all()


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(("first", "count"), [(0, 4), (7, 99)])
def test_global_lists_are_the_best_cosines(rng, first, count, disk):
    descriptors = rng.normal(size=(11, 5)).astype(np.float32)
    expected = best(descriptors @ descriptors.T, first, count)
    rows = on_disk(descriptors) if disk else descriptors
    similarities, indices = global_searches(rows, count, 4, 3)(first)(range(8, 11))
    np.testing.assert_allclose(similarities, expected[0][8:11], atol=1e-5)
    np.testing.assert_array_equal(indices, expected[1][8:11])


def test_rows_from_one_on_stay_on_disk(rng):
    array = rng.random((6, 2))
    rows = rows_from(on_disk(array), 2)
    assert rows.shape == (4, 2)
    np.testing.assert_array_equal(rows[1:9], array[3:])
    np.testing.assert_array_equal(rows[np.array([3, 0])], array[[5, 2]])
