import dataclasses

import jax
import numpy as np
import pytest

from delg_jax.rerank import mds
from delg_jax.rerank.distances import above
from delg_jax.rerank.mds import MdsSettings, embed, list_scores, rerank, scores
from delg_jax.search.graph import SimilarityGraph
from tests.rerank.test_mds_solvers import reference_mds
from tests.rerank.test_superglobal import reference_scores as superglobal_reference
from tests.rerank.test_superglobal import rotations

METHODS = (
    {"method": "classical"},
    {"method": "smacof", "iterations": 5},
    {"method": "landmark", "landmarks": 4},
)


def unit(array):
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


@pytest.mark.parametrize(
    "wrong",
    [
        {"distance": "euclidean"},
        {"missing": "mean"},
        {"method": "tsne"},
        {"contrast": 0.0},
        {"contrast": 0.3, "background": 0.3},
        {"background": -0.1},
        {"missing_weight": 0.0},
        {"weight": 1.5},
        {"concat_weight": -0.1},
        {"dim": 0},
        {"short_list": 0},
        {"landmarks": 0},
        {"query_block": 0},
        {"neighbours": -1},
        {"background_rank": -1},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        MdsSettings(**wrong)


def settings_of(engine):
    return MdsSettings(dim=3, distance="reciprocal", missing="largest", neighbours=2, **engine)


@pytest.mark.parametrize("engine", METHODS, ids=str)
def test_disconnected_or_equal_images_stay_finite(engine):
    """For all forms of distances see `tests/properties/test_numbers.py`."""
    settings = settings_of(engine)
    for value in (0.0, 1.0):
        pairs = np.full((9, 9), value, np.float32)
        found = scores(pairs[0], pairs, np.ones(9, bool), settings)
        assert np.isfinite(found).all()
    one = scores(pairs[0, :1], pairs[:1, :1], np.ones(1, bool), settings)
    assert np.isfinite(one).all()


def test_parts_that_share_nothing_are_kept_apart():
    group = np.arange(8) // 4
    pairs = np.where(group[:, None] == group[None], 0.5, 0).astype(np.float32)
    query = np.where(group == 0, 0.4, 0).astype(np.float32)
    settings = MdsSettings(dim=4, contrast=0.8, weight=1.0)
    found = np.asarray(scores(query, pairs, np.ones(8, bool), settings))
    assert found[:4].min() > found[4:].max()


def test_a_pair_that_one_of_two_lists_holds_is_known_to_smacof(rng):
    similarities = rng.uniform(0.1, 0.9, (6, 6)).astype(np.float32)
    similarities = np.maximum(similarities, similarities.T)
    cut = similarities.copy()
    cut[0, 3] = cut[4, 2] = 0
    settings = MdsSettings(dim=2, method="smacof", missing="largest", iterations=5)
    used, both = np.ones(6, bool), (cut, similarities)
    found, whole = (embed(each, used, settings, each > 0) for each in both)
    np.testing.assert_allclose(found, whole, atol=1e-5)


@pytest.mark.parametrize("form", ["reciprocal", "power"])
def test_the_form_ranks_by_similarity(form):
    query = np.array([0.5, 0.4, 0.3, 0.2, 0.1], np.float32)
    settings = MdsSettings(dim=6, distance=form, power=0.5, contrast=0.6, weight=1.0)
    pairs = np.full((5, 5), 0.15, np.float32)
    found = np.asarray(scores(query, pairs, np.ones(5, bool), settings))
    np.testing.assert_array_equal(np.argsort(-found), np.arange(5))


def reference_scores(query, pairs, settings):
    matrix = np.zeros((len(query) + 1,) * 2)
    matrix[1:, 1:], matrix[0, 1:], matrix[1:, 0] = pairs, query, query
    matrix = np.clip((matrix + matrix.T) / 2 / settings.contrast, 0, 1)
    np.fill_diagonal(matrix, 1)
    points = reference_mds(np.sqrt(2 - 2 * matrix), settings.dim)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    local = np.minimum(query / settings.contrast, 1)
    vectors = points[1:] @ points[0]
    if settings.neighbours:
        step = settings.neighbours, settings.beta
        vectors = superglobal_reference(points[0], points[1:], *step, "mean")
    return settings.weight * vectors + (1 - settings.weight) * local


@pytest.mark.parametrize("neighbours", [0, 3])
def test_scores_equal_the_reference(rng, neighbours):
    settings = MdsSettings(dim=4, contrast=0.7, weight=0.3, neighbours=neighbours)
    query, pairs = rng.random(9).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    found = scores(query, pairs, np.ones(9, bool), settings)
    np.testing.assert_allclose(found, reference_scores(query, pairs, settings), atol=1e-4)


@pytest.mark.parametrize("engine", METHODS, ids=str)
def test_padding_of_the_short_list_changes_nothing(rng, engine):
    settings = settings_of(engine)
    query, pairs = rng.random(9).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    expected = scores(query[:6], pairs[:6, :6], np.ones(6, bool), settings)
    found = np.asarray(scores(query, pairs, np.arange(9) < 6, settings))
    np.testing.assert_allclose(found[:6], expected, atol=1e-4)
    assert (found[6:] == -np.inf).all()


@pytest.mark.parametrize("engine", METHODS[:2], ids=str)
def test_renaming_images_renames_scores(rng, engine):
    settings = settings_of(engine)
    query, pairs = rng.random(9).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    order = rng.permutation(9)
    found = scores(query[order], pairs[order][:, order], np.ones(9, bool), settings)
    expected = np.asarray(scores(query, pairs, np.ones(9, bool), settings))
    np.testing.assert_allclose(found, expected[order], atol=1e-4)


def test_global_descriptors_join_by_the_square_root_of_their_share(rng):
    settings = MdsSettings(dim=4, weight=1.0, concat_weight=0.3)
    query, pairs = rng.random(7).astype(np.float32), rng.random((7, 7)).astype(np.float32)
    vectors = unit(rng.normal(size=(8, 5)))
    found = scores(query, pairs, np.ones(7, bool), settings, vectors)
    alone = reference_scores(query, pairs, settings)
    np.testing.assert_allclose(found, 0.3 * alone + 0.7 * vectors[1:] @ vectors[0], atol=1e-4)


def test_neighbours_are_the_step_of_superglobal(rng):
    settings = MdsSettings(dim=4, weight=0.6, neighbours=3, beta=0.2, concat_weight=0.0)
    query, pairs = rng.random(7).astype(np.float32), rng.random((7, 7)).astype(np.float32)
    vectors = unit(rng.normal(size=(8, 5)))
    found = scores(query, pairs, np.ones(7, bool), settings, vectors)
    step = superglobal_reference(vectors[0], vectors[1:], 3, 0.2, "mean")
    np.testing.assert_allclose(found, 0.6 * step + 0.4 * query, atol=1e-5)


def test_smacof_fits_what_is_known_better_the_less_the_rest_weighs(rng):
    line = np.linspace(0, 1, 12)
    similarities = np.maximum(1 - 4 * np.abs(line[:, None] - line[None]), 0).astype(np.float32)
    wanted, errors = 1 - similarities, []
    for weight in (1.0, 0.01):
        settings = MdsSettings(
            dim=2, distance="complement", method="smacof", missing_weight=weight, iterations=50
        )
        points = np.asarray(embed(similarities, np.ones(12, bool), settings, similarities > 0))
        found = np.linalg.norm(points[:, None] - points[None], axis=-1)
        errors.append(np.abs(found - wanted)[similarities > 0].mean())
    assert errors[1] < 0.5 * errors[0]


@pytest.mark.parametrize(
    ("method", "neighbours", "beside"),
    [
        (METHODS[0], 0, False),
        (METHODS[0], 4, True),
        (METHODS[1], 4, False),
        (METHODS[2], 0, True),
    ],
    ids=str,
)
def test_no_ranking_depends_on_the_basis_of_the_embedding(
    rng, monkeypatch, method, neighbours, beside
):
    settings = MdsSettings(dim=6, weight=0.7, neighbours=neighbours, **method)
    query, pairs = rng.random(20).astype(np.float32), rng.random((20, 20)).astype(np.float32)
    vectors = unit(rng.normal(size=(21, 5))) if beside else None
    monkeypatch.setattr(mds, "embed", embed.__wrapped__)  # compiled ones would not see the turn

    @jax.jit
    def turned(turn):
        with monkeypatch.context() as patch:
            for name in ("classical_mds", "landmark_mds"):
                made = getattr(mds, name)
                patch.setattr(mds, name, lambda *parts, made=made: made(*parts) @ turn)
            return scores.__wrapped__(query, pairs, np.ones(20, bool), settings, vectors)

    expected = np.asarray(turned(np.eye(6, dtype=np.float32)))
    for turn in rotations(rng, 6):
        found = np.asarray(turned(turn))
        np.testing.assert_allclose(found, expected, atol=1e-4)
        np.testing.assert_array_equal(np.argsort(-found), np.argsort(-expected))


@pytest.mark.parametrize(
    ("method", "dim"), [(METHODS[0], 3), (METHODS[0], 8), (METHODS[1], 5)], ids=str
)
def test_indistinguishable_images_score_alike(rng, method, dim):
    # Eight images that resemble the query alone: seven equal eigenvalues, of which `dim` cuts some
    pairs = np.zeros((12, 12), np.float32)
    pairs[:4, :4] = 0.2 + 0.6 * rng.random((4, 4))
    query = np.where(np.arange(12) < 4, 0.5, 0.1).astype(np.float32)
    order = rng.permutation(12)
    settings = MdsSettings(dim=dim, weight=1.0, **method)
    found = np.asarray(scores(query[order], pairs[order][:, order], np.ones(12, bool), settings))
    found = found[np.argsort(order)]
    np.testing.assert_allclose(found[4:], found[4], atol=1e-3)
    expected = scores(query, pairs, np.ones(12, bool), settings)
    np.testing.assert_allclose(found, expected, atol=1e-3)


def graph_of(similarities):
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


def problem(rng, queries=5, count=30):
    similarities = rng.random((queries, count)).astype(np.float32)
    order = np.argsort(-similarities, axis=1, kind="stable")
    graph = graph_of(rng.random((count, count)).astype(np.float32))
    return order, np.take_along_axis(similarities, order, axis=1), graph


def test_any_block_of_queries_gives_the_same_ranking(rng):
    parts = problem(rng)
    found = [
        rerank(*parts, MdsSettings(short_list=12, dim=3, query_block=block)) for block in (2, 99)
    ]
    np.testing.assert_array_equal(found[0], found[1])
    assert rerank(parts[0][:0], parts[1][:0], parts[2], MdsSettings()).shape == (0, 30)


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


@pytest.mark.parametrize("beside", [False, True])
def test_lists_are_scored_one_by_one(rng, beside):
    order, similarities, graph = problem(rng)
    q, x = unit(rng.normal(size=(5, 4))), unit(rng.normal(size=(30, 4)))
    settings = MdsSettings(short_list=12, dim=3, query_block=2)
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


@pytest.mark.parametrize("rank", [4, 99])
def test_an_image_has_its_own_background_if_wanted(rng, rank):
    order, similarities, graph = problem(rng)
    found = rerank(order, similarities, graph, MdsSettings(dim=3, background_rank=rank))
    last = min(rank, 30) - 1
    lifted = SimilarityGraph(graph.indices, above(graph.similarities, graph.similarities[:, last]))
    similarities = above(similarities, similarities[:, last])
    expected = rerank(order, similarities, lifted, MdsSettings(dim=3))
    np.testing.assert_array_equal(found, expected)
    assert (found != rerank(order, similarities, graph, MdsSettings(dim=3))).any()


def test_pairs_of_the_graph_are_known_even_at_the_background():
    # Of image 0 the graph holds all. Image 3 lies at the background of 0, and with `row_minimum`
    # the least that is known of 0 stands for what is missing: nothing, not the 0.5 of image 1
    values = np.array([[1, 0.6, 0.5, 0.2], [1, 0.6, 0.2, 0.1], [1, 0.5, 0.2, 0.1], [1, 0.2, 0, 0]])
    images = np.array([[0, 1, 2, 3], [1, 0, 2, 3], [2, 0, 1, 3], [3, 0, 1, 2]])
    graph = SimilarityGraph(images.astype(np.int32), values.astype(np.float32))
    order, to_query = np.array([[0, 1, 2, 3]]), np.array([[0.9, 0.8, 0.7, 0.4]], np.float32)
    lifted = SimilarityGraph(graph.indices, above(graph.similarities, graph.similarities[:, -1]))
    own = {"dim": 3, "distance": "complement", "weight": 1.0, "short_list": 4}
    for rule in ("largest", "row_minimum"):
        found = list_scores(
            order, to_query, graph, MdsSettings(background_rank=4, missing=rule, **own)
        )
        # Nothing is missing, so that every rule gives the same
        expected = list_scores(order, above(to_query, to_query[:, -1]), lifted, MdsSettings(**own))
        np.testing.assert_allclose(found, expected, atol=1e-6)


def test_absent_images_are_left_out_and_come_last(rng):
    order, similarities, graph = problem(rng)
    similarities[0, 9:] = -np.inf
    settings = MdsSettings(short_list=12, dim=3, query_block=2)
    for rank in (11, 0):
        found = list_scores(
            order, similarities, graph, dataclasses.replace(settings, background_rank=rank)
        )
        assert np.isfinite(found[0, :9]).all()
        assert (found[0, 9:] == -np.inf).all()
    expected = list_scores(order[:, :9], similarities[:, :9], graph, settings)
    np.testing.assert_allclose(found[0, :9], expected[0], atol=1e-4)


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


def test_weight_zero_keeps_the_order_of_the_search(two_landmarks):
    rankings = np.array([[7, 0, 3, 4, 1]])
    similarities = np.array([[0.5, 0.4, 0.4, 0.2, 0.1]], np.float32)
    settings = MdsSettings(short_list=99, dim=2, weight=0.0)
    np.testing.assert_array_equal(rerank(rankings, similarities, two_landmarks, settings), rankings)


@pytest.mark.parametrize("count", [2, 99])
def test_the_first_images_of_the_search_keep_their_places(two_landmarks, count):
    rankings = np.array([[4, 5, 0, 1, 2, 3], [0, 4, 1, 5, 2, 6]])
    similarities = np.array([[0.3, 0.3, 0.3, 0.3, 0.3, 0.3], [0.5, 0.5, 0.4, 0.4, 0.3, 0.3]])
    similarities[1, 0] = -np.inf  # a skipped image stays last
    settings = MdsSettings(short_list=6, dim=2, weight=1.0, keep_first=count)
    found = list_scores(rankings, similarities, two_landmarks, settings)
    ranks = rerank(rankings, similarities, two_landmarks, settings)
    np.testing.assert_array_equal(ranks[0, :count], rankings[0, :count])
    assert ranks[1, -1] == 0
    assert (found[0, :count] == found[0].max()).all()
    free = list_scores(
        rankings, similarities, two_landmarks, MdsSettings(short_list=6, dim=2, weight=1.0)
    )
    np.testing.assert_array_equal(found[:, count:], free[:, count:])
