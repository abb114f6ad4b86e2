import numpy as np
import pytest

from delg_jax.rerank import diffusion
from delg_jax.rerank.diffusion import DiffusionSettings
from delg_jax.search.graph import SimilarityGraph


def rerank(*arguments, **named):
    """The rankings alone."""
    return diffusion.rerank(*arguments, **named)[0]


def graph_of(similarities, neighbours=None):
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)[:, :neighbours]
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


def ranked(similarities):
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return order, np.take_along_axis(similarities, order, axis=1)


def solutions(to_query, similarities, settings):
    """Dense solutions [Q, N] by image, with the affinity as Iscen et al. define it."""
    count = len(similarities)
    near = np.zeros((count, count), bool)
    for row in range(count):
        best = np.argsort(-similarities[row], kind="stable")[: settings.neighbours + 1]
        near[row, best] = True
    affinity = np.minimum(similarities, similarities.T).astype(float) ** settings.power
    affinity *= near & near.T & ~np.eye(count, dtype=bool)
    degree = affinity.sum(axis=1)
    roots = 1 / np.sqrt(np.where(degree > 0, degree, 1))
    system = np.eye(count) - settings.spread * roots[:, None] * affinity * roots[None]
    order, values = ranked(to_query)
    result = []
    for row in range(len(to_query)):
        first = order[row, : settings.query_neighbours]
        target = np.zeros(count)
        target[first] = to_query[row, first] ** settings.power
        result.append(np.linalg.solve(system, target))
    return np.array(result)


def reference(to_query, similarities, settings):
    order, _ = ranked(to_query)
    found = np.take_along_axis(solutions(to_query, similarities, settings), order, axis=1)
    return np.take_along_axis(order, np.argsort(-found, axis=1, kind="stable"), axis=1)


def problem(rng, queries, count):
    similarities = rng.uniform(0.1, 1, (count, count)).astype(np.float32)
    np.fill_diagonal(similarities, 1)
    return rng.uniform(0.1, 1, (queries, count)).astype(np.float32), similarities


@pytest.mark.parametrize(("queries", "count", "neighbours"), [(3, 12, 4), (1, 9, 99), (5, 20, 6)])
def test_equals_the_dense_solution(rng, queries, count, neighbours):
    to_query, similarities = problem(rng, queries, count)
    settings = DiffusionSettings(neighbours, 5, 2.0, 0.8, 40)
    found = rerank(*ranked(to_query), graph_of(similarities), settings, query_block=2)
    np.testing.assert_array_equal(found, reference(to_query, similarities, settings))


@pytest.mark.parametrize("query_block", [2, 99])
def test_scores_are_the_dense_solution_in_the_order_of_the_ranking(rng, query_block):
    to_query, similarities = problem(rng, 3, 12)
    settings = DiffusionSettings(4, 5, 2.0, 0.8, 40)
    ranks, scores = diffusion.rerank(
        *ranked(to_query), graph_of(similarities), settings, query_block
    )
    expected = solutions(to_query, similarities, settings)
    np.testing.assert_allclose(scores, np.take_along_axis(expected, ranks, axis=1), rtol=1e-3)
    assert (np.diff(scores, axis=1) <= 0).all()


def test_a_negative_similarity_starts_no_diffusion(rng):
    to_query, similarities = problem(rng, 2, 9)
    settings = DiffusionSettings(4, 5, 2.0, 0.8, 40)
    ranks, values = ranked(to_query)
    graph = graph_of(similarities)
    found = [
        diffusion.rerank(ranks, np.where(np.arange(9) < 3, values, low), graph, settings)[1]
        for low in (np.float32(-0.9), np.float32(0))
    ]
    np.testing.assert_array_equal(*found)


def test_a_chain_ranks_images_unlike_the_query():
    # 0 - 1 - 2 are linked; 3 is linked to 4. The query sees 0 well and 3 a little
    similarities = np.eye(5, dtype=np.float32)
    for one, other in ((0, 1), (1, 2), (3, 4)):
        similarities[one, other] = similarities[other, one] = 0.5
    to_query = np.array([[0.6, 0, 0, 0.1, 0]], np.float32)
    settings = DiffusionSettings(2, 2, 1.0, 0.9, 20)
    found = rerank(*ranked(to_query), graph_of(similarities), settings)
    assert set(found[0, :3].tolist()) == {0, 1, 2}


def test_one_directed_links_are_left_out():
    # 1 is among the best of 0, but 0 not among the best of 1
    similarities = np.array([[1, 0.9, 0.1], [0.2, 1, 0.8], [0.1, 0.8, 1]], np.float32)
    settings = DiffusionSettings(1, 1, 1.0, 0.9, 20)
    found = rerank(
        *ranked(np.array([[0.5, 0.2, 0.3]], np.float32)), graph_of(similarities), settings
    )
    assert found.tolist() == [[0, 2, 1]]


def test_any_chunk_gives_the_same(rng):
    to_query, similarities = problem(rng, 5, 11)
    settings = DiffusionSettings(4, 3)
    expected = rerank(*ranked(to_query), graph_of(similarities), settings, query_block=1)
    for query_block in (2, 99):
        found = rerank(*ranked(to_query), graph_of(similarities), settings, query_block)
        np.testing.assert_array_equal(found, expected)


def test_renaming_images_renames_the_ranking(rng):
    to_query, similarities = problem(rng, 2, 10)
    settings = DiffusionSettings(4, 3)
    names = rng.permutation(10)
    place = np.argsort(names)
    expected = names[rerank(*ranked(to_query), graph_of(similarities), settings)]
    renamed = similarities[place][:, place]
    found = rerank(*ranked(to_query[:, place]), graph_of(renamed), settings)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_disconnected_and_equal_images_keep_their_order(value):
    similarities = np.full((6, 6), value, np.float32)
    order = np.array([[3, 1, 0, 5, 4, 2]])
    for level in (0.0, 0.5):
        found = rerank(
            order, np.full((1, 6), level), graph_of(similarities), DiffusionSettings(9, 9)
        )
        np.testing.assert_array_equal(found, order)
    one = rerank(
        order[:, :1] * 0, np.ones((1, 1)), graph_of(similarities[:1, :1]), DiffusionSettings()
    )
    assert one.tolist() == [[0]]
    nothing = rerank(order[:0], np.ones((0, 6)), graph_of(similarities), DiffusionSettings())
    assert nothing.shape == (0, 6)


@pytest.mark.parametrize(
    "wrong", [{"neighbours": 0}, {"spread": 1.0}, {"power": 0.0}, {"iterations": 0}]
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        DiffusionSettings(**wrong)
