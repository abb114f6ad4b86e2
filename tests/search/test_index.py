import contextlib
import json
import logging
import shutil

import numpy as np
import pytest

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.features import Extracted
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.locks import exclusive
from delg_jax.search import engine_choice, global_search, index, local_search
from delg_jax.search.engine_choice import SearchSettings, index_place
from delg_jax.search.engines import exact
from delg_jax.search.graph_store import GraphStore
from delg_jax.search.index import (
    build_index,
    claimed,
    fill,
    global_searches,
    local_searches,
    pair_graph,
    rows_from,
)
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.workdir import Output
from tests import stores
from tests.folders import contents
from tests.holding import held
from tests.stores import names
from tests.tiny import retrieval_config

IMAGES, OLD = 13, 7


@pytest.fixture
def config(tmp_path):
    config = retrieval_config(tmp_path).copy_and_resolve_references().unlock()
    config.search.graph_neighbours, config.search.graph_block = 5, 3
    config.search.local_block, config.search.threshold = 4, 0.1
    return config


@pytest.fixture
def rows(rng):
    counts = (3, 2, 5, 1, 4, 2, 4, 0, 5, 3, 3, 5, 2)
    rows = [stores.features(rng, count) for count in counts]
    for row in rows:
        row.global_descriptor[:] /= np.linalg.norm(row.global_descriptor)
    rows[5] = "broken"
    return rows


@pytest.fixture
def build(tmp_path, config, rows):
    """Builds the graph of the first images in a folder of this name, where features may be."""

    def build(folder, count=IMAGES, features="local", **options):
        root = tmp_path / folder
        database = stores.fill(root / "database", rows[:count], max_features=5)
        extracted = Extracted(None, database, None, "digest")
        return build_index(config, root, extracted=extracted, features=features, **options)

    return build


def assert_same(graph, other):
    np.testing.assert_array_equal(graph.indices, other.indices)
    np.testing.assert_allclose(graph.similarities, other.similarities, atol=1e-6)


@pytest.mark.parametrize("features", ["local", "global"])
def test_the_graph_has_the_best_of_the_search(tmp_path, config, build, features):
    graph = build("run", features=features)
    database = stores.FeatureStore(tmp_path / "run" / "database")
    if features == "local":
        local = database.local_features(0)
        parts = (local.descriptors, local.mask)
        full = local_search.similarity(*parts, *parts, SearchSettings.of(config.search).kernel)
        order = np.argsort(-full, axis=1, kind="stable")[:, :5]
        expected = np.take_along_axis(full, order, axis=1)
    else:
        vectors = database.global_descriptors()
        expected, order = global_search.search(vectors, vectors, 5)
    np.testing.assert_array_equal(graph.indices, order)
    np.testing.assert_allclose(graph.similarities, expected, atol=1e-6)


@pytest.mark.parametrize("features", ["local", "global"])
def test_images_that_were_appended_complete_the_graph(build, monkeypatch, features):
    scratch = build("scratch", features=features)
    completed, merge = [], index.merge

    def noting(first, second, count):
        completed.append(len(first[0]))
        return merge(first, second, count)

    monkeypatch.setattr(index, "merge", noting)
    for old in (3, OLD, 12):
        before = build(f"run{old}", old, features)
        assert len(before) == old
        completed.clear()
        graph = build(f"run{old}", features=features)
        # Those that share a chunk with new ones are made again
        assert sum(completed) == old - old % 3
        assert_same(graph, scratch)


def test_a_graph_of_other_features_is_rebuilt(tmp_path, build, rows, rng, caplog):
    build("run"), caplog.clear()
    shutil.rmtree(tmp_path / "run" / "database")
    rows[4] = stores.features(rng, 4)
    expected = build("scratch")
    assert_same(build("run"), expected)
    place = tmp_path / "run" / "index" / "graph"
    (said,) = (text for text in caplog.messages if "built again" in text)
    assert said.startswith(f"{place}: ")
    caplog.clear()
    assert_same(build("run"), expected)
    assert not caplog.messages


@pytest.mark.parametrize("changed", [0, OLD - 1])
def test_images_that_were_appended_to_others_do_not_complete_the_graph(
    tmp_path, build, rows, rng, monkeypatch, changed
):
    build("run", OLD)
    shutil.rmtree(tmp_path / "run" / "database")
    rows[changed] = stores.features(rng, 4)
    monkeypatch.setattr(index, "merge", None)
    assert_same(build("run"), build("scratch"))


def test_a_graph_without_sources_is_rebuilt(tmp_path, build, caplog):
    expected = build("run")
    path = tmp_path / "run" / "index" / "graph" / "graph.json"
    content = json.loads(path.read_text())
    place = path.parent / content["generation"]
    place.rename(path.parent / "13_of_before")
    path.write_text(json.dumps({"format": 1, "generation": "13_of_before", "images": 13}))
    caplog.clear()
    assert_same(build("run"), expected)
    assert any("built again" in text for text in caplog.messages)
    assert not (path.parent / "13_of_before").exists()


def test_rare_features_need_a_new_graph(config, build, monkeypatch):
    config.search.idf_images = 4
    build("run", OLD)
    monkeypatch.setattr(index, "merge", None)
    assert_same(build("run"), build("scratch"))


@pytest.mark.parametrize("graph_features", [0, 3])
def test_pairs_have_the_similarities_of_a_stored_graph(tmp_path, config, build, graph_features):
    """With the idf of words, which a query averages over several and a database image does not."""
    config.search.update(engine="asmk", candidates=IMAGES, idf_images=6, idf_of="words")
    config.search.update(graph_neighbours=IMAGES, graph_features=graph_features)
    config.search.asmk.words, config.search.asmk.assignments = 6, 3
    every = np.arange(IMAGES)
    expected, known = build("run").dense(every)
    assert known.all()
    database, search = stores.FeatureStore(tmp_path / "run" / "database"), config.search
    extracted, settings = Extracted(None, database, None, "digest"), SearchSettings.of(search)
    place = index_place(config, tmp_path / "run", extracted)
    local = database.local_features(search.max_features)
    opened = engine_choice.engine(local, settings, place)
    found, _ = pair_graph(extracted, settings, opened).dense(every)
    np.testing.assert_allclose(found, expected, atol=1e-6)
    assert not np.allclose(opened(local.descriptors, local.mask), found, atol=1e-3)


def test_a_large_database_and_its_graph_stay_on_disk(config, build):
    expected, first = build("run"), build("small", OLD)
    config.data.memory_megabytes = 0
    assert_same(build("disk"), expected)
    assert isinstance(build("disk").similarities, StoredRows)
    assert_same(build("small"), expected)
    assert len(first) == OLD


def test_a_whole_graph_is_read_and_not_built(tmp_path, build, monkeypatch):
    expected = build("run")
    before = contents(tmp_path / "run" / "index")
    monkeypatch.setattr("delg_jax.search.index.fill", None)
    assert_same(build("run"), expected)
    assert contents(tmp_path / "run" / "index") == before


def test_the_two_graphs_stand_side_by_side(tmp_path, config, build):
    build("run"), build("run", features="global")
    config.search.threshold = 0.3  # of local search alone
    build("run", features="global")
    with pytest.raises(UserError, match=r"index/graph.*config\.search\.threshold: 0\.1 -> 0\.3"):
        build("run")
    build("run", overwrite=True)
    assert sorted(path.name for path in (tmp_path / "run" / "index").glob("[!.]*")) == [
        "global_graph",
        "graph",
    ]


def test_a_graph_of_an_older_format_is_logged_and_kept(tmp_path, build, caplog):
    old = tmp_path / "run" / "index" / "graph.npz"
    old.parent.mkdir(parents=True)
    old.write_bytes(b"of before")
    with caplog.at_level(logging.WARNING):
        assert len(build("run")) == IMAGES
    (message,) = caplog.messages
    assert message.startswith(f"{old}: ")
    assert old.read_bytes() == b"of before"


@pytest.mark.parametrize("field", ["graph_neighbours", "graph_block"])
def test_wrong_values_are_named(config, build, field):
    config.search[field] = 0
    with pytest.raises(UserError, match=rf"config\.search\.{field} = 0: "):
        build("run")


MANY, KEPT, BLOCK = 23, 6, 4


@pytest.fixture
def graph_config(tmp_path):
    graph_config = retrieval_config(tmp_path).copy_and_resolve_references().unlock()
    graph_config.search.graph_neighbours, graph_config.search.graph_block = KEPT, BLOCK
    return graph_config


@pytest.fixture
def descriptors(rng):
    found = rng.normal(size=(MANY, 5)).astype(np.float32)
    found[[7, 9, 20]] = found[1]  # equal images, of which the lower index comes first
    found[4] = 0  # like nothing
    return found


def make(
    graph_config, folder, descriptors, overwrite=False, changed=lambda search: search, **options
):
    """Builds the graph of descriptors, or resumes it; `weights` and `extend` may differ."""
    store = GraphStore(folder, names(len(descriptors)), graph_config.data.memory_megabytes)
    searches = global_searches(descriptors, KEPT, BLOCK, 3)
    weights = options.pop("weights", "digest")
    output = Output.of(folder, graph_config, ("search",), {"weights": weights})
    with claimed(store, output, KEPT, BLOCK, overwrite):
        if not store.is_whole():
            fill(store, lambda first: changed(searches(first)), KEPT, "test", **options)
    return store.graph()


@pytest.fixture
def undisturbed(graph_config, tmp_path, descriptors):
    make(graph_config, tmp_path / "undisturbed", descriptors)
    return contents(tmp_path / "undisturbed")


def test_rows_are_the_best_of_all(graph_config, tmp_path, descriptors):
    graph = make(graph_config, tmp_path / "graph", descriptors)
    similarities = descriptors @ descriptors.T
    order = np.argsort(-np.round(similarities, 5), axis=1, kind="stable")[:, :KEPT]
    np.testing.assert_array_equal(graph.indices, order)
    expected = np.take_along_axis(similarities, order, axis=1)
    np.testing.assert_allclose(graph.similarities, expected, atol=1e-5)


def contents_of_first(graph_config, folder, descriptors):
    make(graph_config, folder, descriptors)
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
def test_a_killed_job_resumes_to_the_same_bytes(
    graph_config, tmp_path, descriptors, undisturbed, counts
):
    folder, missing = tmp_path / "graph", 6
    for count in counts:
        with pytest.raises(Killed):
            make(graph_config, folder, descriptors, changed=killed_after(count))
        missing -= count
        assert len(GraphStore(folder, names(MANY)).missing()) == missing
        assert not GraphStore(folder, names(MANY)).is_whole()
    done = []
    make(
        graph_config, folder, descriptors, changed=lambda s: lambda run: done.append(run) or s(run)
    )
    assert len(done) == missing
    assert contents(folder) == undisturbed


@pytest.mark.parametrize("old", [1, 4, 5, 17, 22])
def test_new_images_complete_the_graph(graph_config, tmp_path, descriptors, undisturbed, old):
    folder, searched = tmp_path / "graph", []
    make(graph_config, folder, descriptors[:old])
    make(
        graph_config,
        folder,
        descriptors,
        changed=lambda s: lambda run: searched.append(run) or s(run),
    )
    assert len(searched) == 6
    graph = GraphStore(folder, names(MANY)).graph()
    scratch = GraphStore(tmp_path / "undisturbed", names(MANY)).graph()
    np.testing.assert_array_equal(graph.indices, scratch.indices)
    np.testing.assert_allclose(graph.similarities, scratch.similarities, atol=1e-6)
    assert contents(folder).keys() == undisturbed.keys()


def test_old_images_are_searched_against_the_new_alone(
    graph_config, tmp_path, descriptors, monkeypatch
):
    make(graph_config, tmp_path / "graph", descriptors[:17])
    asked, original = [], global_searches

    def noting(rows, *arguments):
        searches = original(rows, *arguments)

        def against(first):
            return lambda run: asked.append((first, run.start)) or searches(first)(run)

        return against

    monkeypatch.setitem(globals(), "global_searches", noting)
    make(graph_config, tmp_path / "graph", descriptors)
    assert asked == [(17, 0), (17, 4), (17, 8), (17, 12), (0, 16), (0, 20)]
    asked.clear()
    make(graph_config, tmp_path / "other", descriptors[:17])
    make(graph_config, tmp_path / "other", descriptors, extend=False)
    assert {first for first, _ in asked} == {0}


def test_a_killed_completion_keeps_the_old_graph(graph_config, tmp_path, descriptors):
    folder = tmp_path / "graph"
    before = make(graph_config, folder, descriptors[:17]).indices
    make(graph_config, tmp_path / "other", descriptors[:17])
    make(graph_config, tmp_path / "other", descriptors)
    with pytest.raises(Killed):
        make(graph_config, folder, descriptors, changed=killed_after(3))
    np.testing.assert_array_equal(GraphStore(folder, names(17)).graph().indices, before)
    make(graph_config, folder, descriptors)
    assert contents(folder) == contents(tmp_path / "other")


def test_two_processes_make_the_graph_of_one(
    graph_config, tmp_path, descriptors, undisturbed, monkeypatch
):
    folder, done = tmp_path / "graph", {0: [], 1: []}
    with pytest.raises(Killed):  # makes the arrays
        make(graph_config, folder, descriptors, changed=killed_after(0))
    everything = GraphStore(folder, names(MANY)).missing()
    finish = GraphStore.finish
    monkeypatch.setattr(GraphStore, "finish", lambda store: None)  # after both have written
    missing = GraphStore.missing
    for number in (1, 0):
        monkeypatch.setattr(distributed, "shard", lambda number=number: (number, 2))
        monkeypatch.setattr(GraphStore, "missing", lambda store: everything)
        store = GraphStore(folder, names(MANY))
        search = global_searches(descriptors, KEPT, BLOCK, 3)(0)

        def noting(images, number=number, search=search):
            done[number].append(images.start)
            return search(images)

        fill(store, lambda first, noting=noting: noting, KEPT, "test")
    monkeypatch.setattr(GraphStore, "missing", missing)
    finish(store)
    assert done == {0: [0, 8, 16], 1: [4, 12, 20]}
    assert contents(folder) == undisturbed


def test_only_the_first_process_claims_and_finishes(
    graph_config, tmp_path, descriptors, monkeypatch
):
    folder = tmp_path / "graph"
    with pytest.raises(Killed):
        make(graph_config, folder, descriptors, changed=killed_after(4))
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    with held(folder), pytest.raises(UserError, match="incomplete"):
        make(graph_config, folder, descriptors)
    store = GraphStore(folder, names(MANY))
    assert store.missing() == []
    assert not (folder / "graph.json").exists()


def test_a_job_is_refused_as_one(graph_config, tmp_path, descriptors, monkeypatch):
    monkeypatch.setattr(distributed, "is_first", lambda: False)
    monkeypatch.setattr(distributed, "agree", lambda yes, name: False)
    with pytest.raises(UserError, match="similarity graph = .*process 0"):
        make(graph_config, tmp_path / "graph", descriptors)
    assert not (tmp_path / "graph").exists()


def test_a_second_job_is_refused_and_a_reader_is_not(graph_config, tmp_path, descriptors):
    folder = tmp_path / "graph"
    with held(folder):
        with pytest.raises(UserError, match="^similarity graph = .*another job"):
            make(graph_config, folder, descriptors)
        assert not folder.exists()
    make(graph_config, folder, descriptors[:17])
    before = contents(folder)
    with held(folder):
        make(graph_config, folder, descriptors[:17])
        with pytest.raises(UserError, match="another job"):
            make(graph_config, folder, descriptors)
    assert contents(folder) == before
    with contextlib.suppress(Killed):
        make(graph_config, folder, descriptors, changed=killed_after(1))
    with exclusive(folder):  # given back
        pass


def test_another_configuration_is_refused_and_other_images_are_searched_again(
    graph_config, tmp_path, descriptors, caplog
):
    folder = tmp_path / "graph"
    make(graph_config, folder, descriptors)
    before = contents(folder)
    with pytest.raises(UserError, match="weights: 'digest' -> 'other'"):
        make(graph_config, folder, descriptors, weights="other")
    assert contents(folder) == before
    assert len(make(graph_config, folder, descriptors[:9])) == 9
    assert f"{folder}: " in caplog.text
    assert "built again" in caplog.text
    assert contents(folder) == contents_of_first(graph_config, tmp_path / "nine", descriptors[:9])
    assert len(make(graph_config, folder, descriptors, overwrite=True, weights="other")) == MANY


@pytest.mark.parametrize("file", ["graph.json", "*/indices/c.1.0", "*/similarities/zarr.json"])
def test_a_damaged_index_is_rebuilt_only_if_asked_for(
    graph_config, tmp_path, descriptors, undisturbed, file
):
    folder = tmp_path / "graph"
    make(graph_config, folder, descriptors)
    next(folder.glob(file)).write_text("rubbish")
    with pytest.raises(UserError, match="^similarity graph = .*--overwrite"):
        make(graph_config, folder, descriptors)
    make(graph_config, folder, descriptors, overwrite=True)
    assert contents(folder) == undisturbed


def test_a_graph_larger_than_the_memory_is_completed_from_disk(
    graph_config, tmp_path, descriptors, undisturbed
):
    graph_config.data.memory_megabytes = 0
    make(graph_config, tmp_path / "graph", descriptors[:17])
    graph = make(graph_config, tmp_path / "graph", descriptors)
    scratch = GraphStore(tmp_path / "undisturbed", names(MANY)).graph()
    np.testing.assert_array_equal(graph.nearest(KEPT)[1], scratch.indices)


def test_progress_counts_what_was_there(graph_config, tmp_path, descriptors, monkeypatch):
    noted = []

    class Progress(contextlib.nullcontext):
        def __init__(self, title, total, done):
            super().__init__(self)
            noted.append((title, total, done))

        def advance(self, count):
            noted.append(count)

    monkeypatch.setattr(index, "Progress", Progress)
    with pytest.raises(Killed):
        make(graph_config, tmp_path / "graph", descriptors, changed=killed_after(4))
    make(graph_config, tmp_path / "graph", descriptors)
    assert noted == [("test", MANY, 0), 4, 4, 4, 4, ("test", MANY, 16), 4, 3]


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
