import numpy as np
import pytest

from delg_jax.features.storage.rows import StoredRows
from delg_jax.rerank import mds
from delg_jax.search import engines
from delg_jax.search import graph as graph_module
from delg_jax.search.graph import PairGraph, SimilarityGraph, merge
from delg_jax.search.kernels import SimilarityKernel
from tests.search.test_ivf import halves


@pytest.fixture
def graph(rng):
    """Of 11 images, 5 neighbours each."""
    similarities = rng.random((11, 11)).astype(np.float32)
    order = np.argsort(-similarities, axis=1)[:, :5].astype(np.int32)
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


def on_disk(array, read):
    """The array as rows on disk; `read` gets the rows that are asked for."""

    def rows(wanted):
        read.append(np.arange(len(array))[wanted])
        return array[wanted]

    return StoredRows(rows, array.shape, array.dtype)


def reference_dense(graph, subset):
    matrix = np.zeros((len(subset), len(subset)), np.float32)
    known = np.zeros(matrix.shape, bool)
    for row, image in enumerate(subset):
        for other, value in zip(graph.indices[image], graph.similarities[image], strict=True):
            if other in subset:
                matrix[row, list(subset).index(other)] = value
                known[row, list(subset).index(other)] = True
    return matrix, known


@pytest.mark.parametrize("subset", [[], [7], [3, 0, 10, 5], list(range(11))])
def test_dense_equals_looking_up_each_pair(graph, subset):
    found = graph.dense(np.array(subset, int))
    for one, other in zip(found, reference_dense(graph, subset), strict=True):
        np.testing.assert_array_equal(one, other)


def test_dense_by_hand():
    graph = SimilarityGraph(
        np.array([[0, 2], [1, 0], [2, 1]], np.int32),
        np.array([[1, 0.5], [1, 0], [1, 0.125]], np.float32),
    )
    similarities, known = graph.dense([2, 0])
    assert similarities.tolist() == [[1, 0], [0.5, 1]]
    assert known.tolist() == [[True, False], [True, True]]
    similarities, known = graph.dense([1, 0])  # image 0 is kept in the list of 1, with 0
    assert similarities.tolist() == [[1, 0], [0, 1]]
    assert known.tolist() == [[True, True], [False, True]]


def test_dense_reads_the_rows_that_it_needs(graph):
    read, subset = [], np.array([9, 2, 4])
    stored = SimilarityGraph(on_disk(graph.indices, read), on_disk(graph.similarities, read))
    for one, other in zip(stored.dense(subset), graph.dense(subset), strict=True):
        np.testing.assert_array_equal(one, other)
    assert [rows.tolist() for rows in read] == [[9, 2, 4]] * 2


@pytest.mark.parametrize("rank", [1, 3, 5, 99])
def test_a_rank_is_looked_up_in_the_lists_of_images(graph, rank):
    images = np.array([[3, 1], [0, 10]])
    expected = graph.similarities[:, min(rank, 5) - 1][images]
    np.testing.assert_array_equal(graph.at_rank(images, rank), expected)


@pytest.mark.parametrize("count", [1, 4, 99])
@pytest.mark.parametrize("block_bytes", [1, 60, 2**26])
def test_the_nearest_are_read_in_blocks(graph, monkeypatch, count, block_bytes):
    monkeypatch.setattr(graph_module, "_BLOCK_BYTES", block_bytes)
    read = []
    stored = SimilarityGraph(on_disk(graph.indices, read), on_disk(graph.similarities, read))
    similarities, indices = stored.nearest(count)
    np.testing.assert_array_equal(similarities, graph.similarities[:, :count])
    np.testing.assert_array_equal(indices, graph.indices[:, :count])
    assert max(len(rows) for rows in read) == min(max(1, block_bytes // 20), 11)


def test_a_graph_of_no_images_is_empty():
    graph = SimilarityGraph(np.zeros((0, 0), np.int32), np.zeros((0, 0), np.float32))
    assert len(graph) == 0
    assert [part.shape for part in graph.dense(np.zeros(0, int))] == [(0, 0)] * 2
    assert graph.nearest(3)[0].shape == (0, 0)


def test_merged_by_hand():
    first = np.array([[0.9, 0.5, 0.5]], np.float32), np.array([[2, 0, 1]], np.int32)
    second = np.array([[0.9, 0.7, 0.5]], np.float32), np.array([[4, 3, 5]], np.int32)
    similarities, images = merge(first, second, 5)
    np.testing.assert_array_equal(similarities, np.float32([[0.9, 0.9, 0.7, 0.5, 0.5]]))
    assert images.tolist() == [[2, 4, 3, 0, 1]]


@pytest.mark.parametrize("kept", [(3, 2), (6, 9), (1, 1)])
@pytest.mark.parametrize("count", [1, 4, 99])
def test_merged_lists_are_those_of_all_images(rng, kept, count):
    similarities = rng.integers(0, 5, (4, 15)).astype(np.float32)  # many are equal

    def lists(first, last, count):
        order = first + np.argsort(-similarities[:, first:last], axis=1, kind="stable")[:, :count]
        return np.take_along_axis(similarities, order, axis=1), order.astype(np.int32)

    found = merge(lists(0, 6, max(kept[0], count)), lists(6, 15, max(kept[1], count)), count)
    expected = lists(0, 15, count)
    np.testing.assert_array_equal(found[0], expected[0])
    np.testing.assert_array_equal(found[1], expected[1])


KERNEL = SimilarityKernel("threshold", threshold=0.3)


@pytest.fixture
def database(rng):
    return halves(rng, 9, 5)


def stored(search, database, neighbours=9):
    similarities, images = search.top(*database, neighbours)
    return SimilarityGraph(images, similarities)


@pytest.mark.parametrize("idf_images", [0, 4])
@pytest.mark.parametrize("subset", [[3], [7, 2, 5], list(range(9))[::-1], []])
def test_a_pair_graph_knows_what_a_stored_one_of_all_pairs_knows(database, idf_images, subset):
    search = engines.exact(*database, KERNEL, 4, idf_images, 2)
    graph = PairGraph(search)
    assert len(graph) == 9
    expected, _ = stored(search, database).dense(np.array(subset, int))
    for _ in range(2):  # the second time, weights are known
        found, known = graph.dense(np.array(subset, int))
        np.testing.assert_allclose(found, expected, atol=1e-6)
        assert known.all()
        assert known.shape == found.shape


def test_ranks_of_a_sample_of_all_images_are_exact(database):
    search = engines.exact(*database, KERNEL, 4, 9)
    images = np.array([[4, 1], [1, 8]])
    for rank in (1, 3, 9, 50):
        expected = stored(search, database).at_rank(images, rank)
        np.testing.assert_allclose(PairGraph(search).at_rank(images, rank), expected, atol=1e-6)


def test_ranks_are_those_of_as_large_a_share_of_the_sample(database):
    search = engines.exact(*database, KERNEL, 4, 3)
    values = search.among(np.array([0, 4, 8]), database[0][:2], database[1][:2])
    ranked = -np.sort(-values, axis=1)
    for rank, place in ((1, 0), (3, 0), (4, 1), (9, 2)):
        found = PairGraph(search).at_rank(np.array([0, 1]), rank)
        np.testing.assert_allclose(found, ranked[:, place], atol=1e-6)
    with pytest.raises(ValueError, match=r"search\.sample"):
        PairGraph(engines.exact(*database, KERNEL)).at_rank(np.array([0]), 1)


def test_few_weights_are_kept(database, monkeypatch):
    monkeypatch.setattr("delg_jax.search.graph._REMEMBERED", 3)
    search = engines.exact(*database, KERNEL, 4, 4)
    graph, expected = PairGraph(search), stored(search, database)
    for subset in ([0, 1, 2, 3], [3, 4], [8, 0], [5, 6, 7]):
        np.testing.assert_allclose(graph.dense(subset)[0], expected.dense(subset)[0], atol=1e-6)
        assert len(graph._weights) <= 4


def test_a_pair_graph_reads_only_the_images_asked_for(database):
    read = []

    def rows(array):
        def take(wanted):
            read.append(np.asarray(wanted).tolist())
            return array[wanted]

        return StoredRows(take, array.shape, array.dtype)

    search = engines.exact(*map(rows, database), KERNEL, 4)
    PairGraph(search).dense([7, 2, 5])
    assert read == [[2, 5, 7]] * 2


@pytest.mark.parametrize("method", ["classical", "profile"])
def test_both_graphs_rerank_alike(database, method):
    queries = halves(np.random.default_rng(1), 3, 4)
    search = engines.exact(*database, KERNEL, 4, 9)
    similarities, images = search.top(*queries, 9)
    settings = mds.MdsSettings(short_list=6, dim=4, method=method, missing="zero")
    graphs = stored(search, database), PairGraph(search)
    scores = [mds.list_scores(images, similarities, graph, settings) for graph in graphs]
    np.testing.assert_allclose(scores[0], scores[1], atol=1e-4)
