import json

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.storage.rows import StoredRows
from delg_jax.search.graph_store import GraphStore
from tests.folders import contents
from tests.stores import names


@pytest.fixture
def lists(rng):
    """Random lists of 7 images."""
    return rng.random((7, 4)).astype(np.float32), rng.integers(0, 7, (7, 4)).astype(np.int32)


def write(store, lists, runs=None):
    store.start(4, 3)
    for run in store.missing() if runs is None else runs:
        store.write(run, tuple(part[run.start : run.stop] for part in lists))


@pytest.fixture
def whole(tmp_path, lists):
    store = GraphStore(tmp_path, names(7))
    write(store, lists)
    store.finish()
    return tmp_path


def test_written_files_are_read_back(whole, lists):
    graph = GraphStore(whole, names(7)).graph()
    np.testing.assert_array_equal(graph.similarities, lists[0])
    np.testing.assert_array_equal(graph.indices, lists[1])
    assert (graph.similarities.dtype, graph.indices.dtype) == (np.float32, np.int32)


def test_a_graph_that_is_too_large_stays_on_disk(whole, lists):
    graph = GraphStore(whole, names(7), memory_megabytes=100 / 2**20).graph()
    assert isinstance(graph.indices, StoredRows)
    in_memory = GraphStore(whole, names(7)).graph()
    for one, other in zip(graph.dense([5, 0, 3]), in_memory.dense([5, 0, 3]), strict=True):
        np.testing.assert_array_equal(one, other)
    np.testing.assert_array_equal(graph.nearest(2)[1], lists[1][:, :2])


def test_rows_on_disk_are_read_from_their_chunks_alone(whole):
    for array in ("indices", "similarities"):
        next(whole.glob(f"*/{array}/c.1.0")).unlink()
    graph = GraphStore(whole, names(7), memory_megabytes=0).graph()
    assert graph.dense([6, 0])[0].shape == (2, 2)
    with pytest.raises(UserError, match=r"similarity graph = .*--overwrite"):
        graph.dense([3])


def test_missing_are_the_chunks_that_are_not_there(tmp_path, lists):
    store = GraphStore(tmp_path, names(7))
    store.start(4, 3)
    assert store.missing() == [range(0, 3), range(3, 6), range(6, 7)]
    write(store, lists, [range(3, 6)])
    assert store.missing() == [range(0, 3), range(6, 7)]
    with pytest.raises(UserError, match="4 images.* delg index"):
        store.finish()
    with pytest.raises(UserError, match="similarity graph = .* delg index"):
        store.graph()
    next(tmp_path.glob("*/indices/c.1.0")).unlink()  # one of two arrays is not enough
    assert len(GraphStore(tmp_path, names(7)).missing()) == 3


def test_a_graph_of_more_images_replaces_the_old_one(whole, rng):
    store = GraphStore(whole, names(9))
    assert not store.is_whole()
    assert len(store.previous()) == 7
    before = contents(whole)
    store.start(4, 3)
    assert contents(whole).items() > before.items()  # until the other is whole
    write(store, (rng.random((9, 4)).astype(np.float32), np.zeros((9, 4), np.int32)))
    next(whole.glob("9_*/indices")).joinpath("c.0.0.__lock").touch()  # of a killed writer
    store.finish()
    assert len(GraphStore(whole, names(9)).graph()) == 9
    assert sorted(path.name[:2] for path in whole.iterdir()) == ["9_", "gr"]
    assert not list(whole.rglob("*.__lock"))


@pytest.mark.parametrize("wrong", [names(7)[::-1], names(3), ["other", *names(9)]])
def test_a_graph_of_other_images_is_not_used(whole, wrong):
    store = GraphStore(whole, wrong)
    assert not store.is_whole()
    assert store.is_stale()
    assert store.previous() is None
    assert not GraphStore(whole, names(9)).is_stale()


def test_there_is_no_graph_at_first(tmp_path):
    store = GraphStore(tmp_path, names(7))
    assert store.previous() is None
    assert not store.is_whole()
    with pytest.raises(UserError, match="incomplete"):
        store.graph()


@pytest.mark.parametrize("content", ["", "{}", "[]", "rubbish", json.dumps({"format": 99})])
def test_a_damaged_description_is_named(whole, content):
    (whole / "graph.json").write_text(content)
    with pytest.raises(UserError, match=r"graph\.json.* format 1"):
        GraphStore(whole, names(7)).is_whole()


@pytest.mark.parametrize("file", ["c.1.0", "zarr.json"])
@pytest.mark.parametrize("array", ["indices", "similarities"])
def test_damage_is_found_and_named(whole, array, file):
    path = next(whole.glob(f"*/{array}/{file}"))
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    for damaged in (content, content[:-3]):
        path.write_bytes(damaged)
        with pytest.raises(UserError, match=rf"^similarity graph = .*/{array}"):
            GraphStore(whole, names(7)).graph()
