"""Re-ranking of short lists by embeddings, with what the similarity graph holds."""

import numpy as np
import pytest

from delg_jax.rerank.distances import above
from delg_jax.rerank.mds import MdsSettings, list_scores, rerank, scores
from delg_jax.search.graph import SimilarityGraph
from tests.rerank.test_mds import METHODS, unit


def graph_of(similarities):
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


def problem(rng, queries=5, count=30):
    similarities = rng.random((queries, count)).astype(np.float32)
    order = np.argsort(-similarities, axis=1, kind="stable")
    graph = graph_of(rng.random((count, count)).astype(np.float32))
    return order, np.take_along_axis(similarities, order, axis=1), graph


@pytest.mark.parametrize("method", METHODS[:2], ids=str)
def test_any_block_of_queries_gives_the_same_ranking(rng, method):
    parts = problem(rng)
    found = [
        rerank(*parts, MdsSettings(short_list=12, dim=3, query_block=block, **method))
        for block in (1, 2, 99)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[2])
    assert rerank(parts[0][:0], parts[1][:0], parts[2], MdsSettings(**method)).shape == (0, 30)


def test_rerank_takes_the_descriptors_of_its_images(rng):
    order, similarities, graph = problem(rng)
    q, x = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(30, 4)))
    settings = MdsSettings(short_list=12, dim=3, weight=1.0, concat_weight=0.0, query_block=2)
    found = rerank(order, similarities, graph, settings, q, x)
    for row in range(5):
        head = order[row, :12]
        expected = head[np.argsort(-x[head] @ q[row], kind="stable")]
        np.testing.assert_array_equal(found[row, :12], expected)
    with pytest.raises(ValueError, match="together"):
        rerank(order, similarities, graph, settings, q)


@pytest.mark.parametrize("block", [2, 99])
@pytest.mark.parametrize("beside", [False, True])
def test_lists_are_scored_one_by_one(rng, block, beside):
    order, similarities, graph = problem(rng)
    q, x = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(30, 4)))
    settings = MdsSettings(short_list=12, dim=3, query_block=block)
    vectors = (q, x) if beside else ()
    found = list_scores(order, similarities, graph, settings, *vectors)
    ranks = rerank(order, similarities, graph, settings, *vectors)
    assert (found.shape, found.dtype) == ((5, 12), np.float32)
    for row in range(5):
        head = order[row, :12]
        own = np.concatenate([q[row : row + 1], x[head]]) if beside else None
        pairs, known = graph.dense(head)
        given = similarities[row, :12], pairs, np.ones(12, bool), settings, own, known
        expected = scores(*given)
        np.testing.assert_allclose(found[row], expected, atol=1e-4)
        by_score = head[np.argsort(-found[row], kind="stable")]
        np.testing.assert_array_equal(ranks[row, :12], by_score)


@pytest.mark.parametrize("rank", [4, 20, 99])
def test_an_image_has_its_own_background_if_wanted(rng, rank):
    order, similarities, graph = problem(rng)
    found = rerank(order, similarities, graph, MdsSettings(dim=3, background_rank=rank))
    last = min(rank, 30) - 1
    lifted = SimilarityGraph(graph.indices, above(graph.similarities, graph.similarities[:, last]))
    similarities = above(similarities, similarities[:, last])
    expected = rerank(order, similarities, lifted, MdsSettings(dim=3))
    np.testing.assert_array_equal(found, expected)
    assert (found != rerank(order, similarities, graph, MdsSettings(dim=3))).any()


def test_what_the_graph_holds_is_known_also_where_it_counts_as_nothing():
    # Of image 0 the graph holds all. Image 3 lies at the background of 0, and with `row_minimum`
    # the least that is known of 0 stands for what is missing: nothing, not the 0.5 of image 1
    values = np.array([[1, 0.6, 0.5, 0.2], [1, 0.6, 0.2, 0.1], [1, 0.5, 0.2, 0.1], [1, 0.2, 0, 0]])
    images = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])
    graph = SimilarityGraph(images.astype(np.int32), values.astype(np.float32))
    order, to_query = np.array([[0, 1, 2, 3]]), np.array([[0.9, 0.8, 0.7, 0.4]], np.float32)
    lifted = SimilarityGraph(graph.indices, above(graph.similarities, graph.similarities[:, -1]))
    own = {"dim": 3, "distance": "complement", "weight": 1.0, "short_list": 4}
    for rule in ("zero", "largest", "row_minimum"):
        found = list_scores(
            order, to_query, graph, MdsSettings(background_rank=4, missing=rule, **own)
        )
        # Nothing is missing, so that every rule gives the same
        expected = list_scores(order, above(to_query, to_query[:, -1]), lifted, MdsSettings(**own))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_what_is_no_image_is_left_out_and_comes_last(rng):
    order, similarities, graph = problem(rng, queries=1)
    similarities[0, 9:] = -np.inf
    for settings in (
        MdsSettings(short_list=12, dim=3),
        MdsSettings(short_list=12, dim=3, background_rank=11),
    ):
        found = list_scores(order, similarities, graph, settings)
        assert np.isfinite(found[0, :9]).all()
        assert (found[0, 9:] == -np.inf).all()
    settings = MdsSettings(short_list=12, dim=3)
    found = list_scores(order, similarities, graph, settings)
    expected = list_scores(order[:, :9], similarities[:, :9], graph, settings)
    np.testing.assert_allclose(found[:, :9], expected, atol=1e-4)


@pytest.fixture
def two_landmarks():
    """Images 0-3 show one landmark and 4-7 another; all are neighbours of their like."""
    group = np.arange(8) // 4
    similarities = np.where(group[:, None] == group[None], 0.5, 0.1).astype(np.float32)
    np.fill_diagonal(similarities, 1)
    return graph_of(similarities)


def test_rerank_pulls_up_an_image_that_resembles_the_best(two_landmarks):
    # Image 3 is less like the query than 4 is, but like 0, 1 and 2, which are most like it;
    # one dimension can only tell the two landmarks apart
    ranking = np.array([[0, 1, 2, 4, 3, 5, 6, 7]])
    similarities = np.array([[0.5, 0.5, 0.45, 0.3, 0.28, 0.2, 0.1, 0.1]], np.float32)
    found = rerank(ranking, similarities, two_landmarks, MdsSettings(short_list=6, dim=1))
    assert found.tolist() == [[0, 1, 2, 3, 4, 5, 6, 7]]


def test_rerank_leaves_its_input_and_the_rest_alone(two_landmarks, rng):
    rankings = np.stack([rng.permutation(8), rng.permutation(8)])
    before = rankings.copy()
    similarities = np.sort(rng.random((2, 8)).astype(np.float32), axis=1)[:, ::-1]
    found = rerank(rankings, similarities, two_landmarks, MdsSettings(short_list=3, dim=2))
    np.testing.assert_array_equal(rankings, before)
    np.testing.assert_array_equal(found[:, 3:], before[:, 3:])
    np.testing.assert_array_equal(np.sort(found[:, :3], axis=1), np.sort(before[:, :3], axis=1))


def test_weight_zero_keeps_the_order_of_the_local_search(two_landmarks):
    rankings = np.array([[7, 0, 3, 4, 1]])
    similarities = np.array([[0.5, 0.4, 0.4, 0.2, 0.1]], np.float32)
    settings = MdsSettings(short_list=99, dim=2, weight=0.0)
    np.testing.assert_array_equal(rerank(rankings, similarities, two_landmarks, settings), rankings)
