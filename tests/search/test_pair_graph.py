import numpy as np
import pytest

from delg_jax.features.storage.rows import StoredRows
from delg_jax.rerank import mds
from delg_jax.search import engines
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.pair_graph import PairGraph
from tests.search.test_ivf import halves

KERNEL = SimilarityKernel("threshold", threshold=0.3)


@pytest.fixture
def database(rng):
    return halves(rng, 9, 5)


def stored(search, database, neighbours=9):
    similarities, images = search.top(*database, neighbours)
    return SimilarityGraph(images, similarities)


@pytest.mark.parametrize("idf_images", [0, 4])
@pytest.mark.parametrize("subset", [[3], [7, 2, 5], list(range(9))[::-1], []])
def test_it_knows_what_a_graph_of_all_pairs_knows(database, idf_images, subset):
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
    monkeypatch.setattr("delg_jax.search.pair_graph._REMEMBERED", 3)
    search = engines.exact(*database, KERNEL, 4, 4)
    graph, expected = PairGraph(search), stored(search, database)
    for subset in ([0, 1, 2, 3], [3, 4], [8, 0], [5, 6, 7]):
        np.testing.assert_allclose(graph.dense(subset)[0], expected.dense(subset)[0], atol=1e-6)
        assert len(graph._weights) <= 4


def test_only_the_images_asked_for_are_read(database):
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
