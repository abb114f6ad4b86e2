import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.search import local_search
from delg_jax.search.engines import exact
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.graph import build as build_graph
from delg_jax.search.kernels import SimilarityKernel

KERNEL = SimilarityKernel("threshold", threshold=0.2)


def build(descriptors, mask, neighbours, block=32, query_block=32, progress=None):
    search = exact(descriptors, mask, KERNEL, block)
    return build_graph(descriptors, mask, search, neighbours, query_block, progress)


@pytest.fixture
def images(rng):
    descriptors = rng.normal(size=(11, 4, 6)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    mask = rng.random((11, 4)) < 0.8
    mask[:, 0] = True
    return descriptors, mask


@pytest.fixture
def graph(images):
    return build(*images, neighbours=5)


def reference_dense(graph, subset):
    matrix = np.zeros((len(subset), len(subset)), np.float32)
    for row, image in enumerate(subset):
        for other, value in zip(graph.indices[image], graph.similarities[image], strict=True):
            if other in subset:
                matrix[row, list(subset).index(other)] = value
    return matrix


@pytest.mark.parametrize(("block", "query_block"), [(3, 4), (11, 1), (32, 32)])
def test_keeps_the_best_of_the_local_search(images, block, query_block):
    graph = build(*images, 5, block, query_block)
    full = local_search.similarity(*images, *images, KERNEL)
    order = np.argsort(-full, axis=1, kind="stable")[:, :5]
    np.testing.assert_array_equal(graph.indices, order)
    np.testing.assert_allclose(
        graph.similarities, np.take_along_axis(full, order, axis=1), atol=1e-6
    )


def test_each_image_is_its_own_best(graph):
    np.testing.assert_array_equal(graph.indices[:, 0], np.arange(11))
    np.testing.assert_allclose(graph.similarities[:, 0], 1, atol=1e-6)


def test_ties_go_to_the_lower_index():
    descriptors, mask = np.ones((4, 1, 1), np.float32), np.ones((4, 1), bool)
    graph = build(descriptors, mask, 3)
    assert graph.indices.tolist() == [[0, 1, 2]] * 4


def test_more_neighbours_than_images_keeps_all(images):
    graph = build(*images, 100)
    assert graph.indices.shape == (11, 11)
    full = local_search.similarity(*images, *images, KERNEL)
    np.testing.assert_allclose(graph.dense(np.arange(11)), full, atol=1e-6)


@pytest.mark.parametrize("subset", [[], [7], [3, 0, 10, 5], list(range(11))])
def test_dense_equals_looking_up_each_pair(graph, subset):
    dense = graph.dense(np.array(subset, int))
    np.testing.assert_array_equal(dense, reference_dense(graph, subset))


def test_dense_by_hand():
    graph = SimilarityGraph(
        np.array([[0, 2], [1, 0], [2, 1]], np.int32),
        np.array([[1, 0.5], [1, 0.25], [1, 0.125]], np.float32),
    )
    assert graph.dense([2, 0]).tolist() == [[1, 0], [0.5, 1]]


def test_images_without_features_are_like_nothing(images):
    descriptors, mask = images
    mask[4] = False
    graph = build(descriptors, mask, 11)
    assert (graph.similarities[4] == 0).all()
    assert (graph.dense(np.arange(11))[:, 4] == 0).all()


def test_progress_adds_up_to_all_images(images):
    finished = []
    build(*images, 2, query_block=4, progress=finished.append)
    assert finished == [4, 4, 3]


def test_saved_and_loaded_is_the_same(graph, tmp_path):
    path = tmp_path / "graph.npz"
    graph.save(path)
    loaded = SimilarityGraph.load(path)
    np.testing.assert_array_equal(loaded.indices, graph.indices)
    np.testing.assert_array_equal(loaded.similarities, graph.similarities)
    assert [file.name for file in tmp_path.iterdir()] == ["graph.npz"]


def test_failed_save_leaves_the_old_file_and_nothing_else(graph, tmp_path, monkeypatch):
    path = tmp_path / "graph.npz"
    graph.save(path)
    before = path.read_bytes()

    def fail(file, **arrays):
        file.write(b"half")
        raise OSError("disk full")

    monkeypatch.setattr(np, "savez", fail)
    with pytest.raises(OSError, match="disk full"):
        graph.save(path)
    assert path.read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == ["graph.npz"]


@pytest.mark.parametrize("content", [b"", b"not a graph", b"PK\x03\x04 cut short"])
def test_damaged_file_is_a_user_error(tmp_path, content):
    path = tmp_path / "graph.npz"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"graph\.npz"):
        SimilarityGraph.load(path)


def test_file_cut_short_is_a_user_error(graph, tmp_path):
    path = tmp_path / "graph.npz"
    graph.save(path)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(UserError, match=r"graph\.npz"):
        SimilarityGraph.load(path)


def test_other_arrays_and_a_missing_file_are_user_errors(tmp_path):
    np.savez(tmp_path / "other.npz", something=np.zeros(2))
    with pytest.raises(UserError, match=r"other\.npz"):
        SimilarityGraph.load(tmp_path / "other.npz")
    with pytest.raises(UserError, match="must be an existing file"):
        SimilarityGraph.load(tmp_path / "missing.npz")


def test_misuse_is_named(images):
    with pytest.raises(ValueError, match=r"`neighbours` \(=0\)"):
        build(*images, 0)
