import json
import logging
import shutil

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features import Extracted
from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import global_search, graph_building, local_search
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.index import build_index
from tests import stores
from tests.folders import contents
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
@pytest.mark.parametrize("old", [3, OLD, 12])
def test_images_that_were_appended_complete_the_graph(build, monkeypatch, features, old):
    before = build("run", old, features)
    assert len(before) == old
    completed, merge = [], graph_building.merge

    def noting(first, second, count):
        completed.append(len(first[0]))
        return merge(first, second, count)

    monkeypatch.setattr(graph_building, "merge", noting)
    graph = build("run", features=features)
    assert sum(completed) == old - old % 3  # those that share a chunk with new ones are made again
    assert_same(graph, build("scratch", features=features))


def test_a_graph_of_other_features_is_rebuilt(tmp_path, build, rows, rng, caplog):
    build("run"), caplog.clear()
    shutil.rmtree(tmp_path / "run" / "database")
    rows[4] = stores.features(rng, 4)
    expected = build("scratch")
    assert_same(build("run"), expected)
    place = tmp_path / "run" / "index" / "graph"
    said = f"{place}: is of other features, or of an earlier version; built again"
    assert [text for text in caplog.messages if "built again" in text] == [said]
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
    monkeypatch.setattr(graph_building, "merge", None)
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
    assert any("of an earlier version; built again" in text for text in caplog.messages)
    assert not (path.parent / "13_of_before").exists()


def test_rare_features_need_a_new_graph(config, build, monkeypatch):
    config.search.idf_images = 4
    build("run", OLD)
    monkeypatch.setattr(graph_building, "merge", None)
    assert_same(build("run"), build("scratch"))


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
    assert caplog.messages == [f"{old}: of an older version, not used; you can delete it"]
    assert old.read_bytes() == b"of before"


@pytest.mark.parametrize("field", ["graph_neighbours", "graph_block"])
def test_wrong_values_are_named(config, build, field):
    config.search[field] = 0
    with pytest.raises(UserError, match=rf"config\.search\.{field} = 0: must be at least 1"):
        build("run")
