import jax
import numpy as np
import pytest

from delg_jax.rerank.mds import MdsSettings, classical_mds, distances, rerank, scores
from delg_jax.search.graph import SimilarityGraph

FORMS = ("chord", "complement", "reciprocal")


def pairwise(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1).astype(np.float32)


def reference_mds(distances, dim):
    count = len(distances)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances.astype(float) ** 2 @ centring)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    return vectors * np.sqrt(np.where(values > 1e-6 * values[0], values, 0))


@pytest.mark.parametrize(
    ("form", "expected"),
    [
        ("chord", [[0, 1, 0, 2**0.5], [1, 0, 1.5**0.5, 1.25**0.5]]),
        ("complement", [[0, 0.5, 0, 1], [0.5, 0, 0.75, 0.625]]),
        ("reciprocal", [[0, 2, 1, 4], [2, 0, 4, 8 / 3]]),
    ],
)
def test_distances_by_hand(form, expected):
    # Pairs of contrast 1/2: mean 1/4, above the contrast, missing, one-sided
    matrix = np.array(
        [[0.1, 0.5, 0.9, 0], [0, 0.3, 0, 0.375], [0.8, 0.25, 0, 0], [0, 0, 0, 0]], np.float32
    )
    found = distances(matrix, form, 0.5)
    np.testing.assert_allclose(found[:2], expected, atol=1e-6)
    np.testing.assert_allclose(found, found.T)


@pytest.mark.parametrize("form", FORMS)
def test_distances_fall_with_similarity_and_are_finite(form):
    matrix = np.zeros((3, 3), np.float32)
    found = []
    for value in (0.0, 1e-30, 0.1, 0.3, 0.6, 2.0):
        matrix[0, 1] = matrix[1, 0] = value
        matrix[0, 2] = matrix[2, 0] = 0.05
        found.append(float(distances(matrix, form, 0.6)[0, 1]))
    assert np.isfinite(found).all()
    assert found[0] == found[1]
    assert found[1] >= found[2] > found[3] > found[4] == found[5]


def test_unknown_form_is_named():
    with pytest.raises(ValueError, match="'euclidean'.*chord, complement, reciprocal"):
        distances(np.zeros((2, 2), np.float32), "euclidean", 1.0)


@pytest.mark.parametrize(
    "wrong",
    [{"distance": "euclidean"}, {"contrast": 0.0}, {"weight": 1.5}, {"dim": 0}, {"short_list": 0}],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        MdsSettings(**wrong)


@pytest.mark.parametrize(("count", "dimension"), [(2, 1), (9, 3), (30, 5)])
def test_recovers_points_from_their_distances(rng, count, dimension):
    points = rng.normal(size=(count, dimension))
    found = np.asarray(classical_mds(pairwise(points), 8))
    assert found.shape == (count, 8)
    np.testing.assert_allclose(pairwise(found), pairwise(points), atol=1e-4)
    np.testing.assert_allclose(found[:, dimension:], 0, atol=2e-3)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("dim", [1, 4, 40])
def test_equals_the_reference_up_to_rotation(rng, form, dim):
    matrix = np.asarray(distances(rng.random((12, 12)).astype(np.float32), form, 0.8))
    found, expected = np.asarray(classical_mds(matrix, dim)), reference_mds(matrix, dim)
    scale = np.abs(expected).max() ** 2
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4 * scale)


def test_sign_is_fixed(rng):
    points = np.asarray(classical_mds(pairwise(rng.normal(size=(7, 3))), 3))
    assert (np.take_along_axis(points, np.abs(points).argmax(axis=0)[None], axis=0) > 0).all()


def test_masked_rows_are_zero_and_unseen(rng):
    points = rng.normal(size=(8, 3))
    matrix = np.full((11, 11), 50, np.float32)
    matrix[:8, :8] = pairwise(points)
    found = np.asarray(classical_mds(matrix, 4, np.arange(11) < 8))
    np.testing.assert_allclose(pairwise(found[:8]), pairwise(points), atol=1e-4)
    assert (found[8:] == 0).all()


@pytest.mark.parametrize("value", [0.0, 1.0])
@pytest.mark.parametrize("form", FORMS)
def test_disconnected_or_equal_images_stay_finite(value, form):
    settings = MdsSettings(distance=form, dim=4)
    pairs = np.full((6, 6), value, np.float32)
    found = scores(pairs[0], pairs, np.ones(6, bool), settings)
    assert np.isfinite(found).all()


def reference_scores(query, pairs, settings):
    matrix = np.zeros((len(query) + 1,) * 2)
    matrix[1:, 1:], matrix[0, 1:], matrix[1:, 0] = pairs, query, query
    matrix = np.clip((matrix + matrix.T) / 2 / settings.contrast, 0, 1)
    np.fill_diagonal(matrix, 1)
    points = reference_mds(np.sqrt(2 - 2 * matrix), settings.dim)
    points /= np.linalg.norm(points, axis=1, keepdims=True)
    local = np.minimum(query / settings.contrast, 1)
    return settings.weight * points[1:] @ points[0] + (1 - settings.weight) * local


@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_scores_equal_the_reference(rng, weight):
    settings = MdsSettings(dim=4, contrast=0.7, weight=weight)
    query, pairs = rng.random(9).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    found = scores(query, pairs, np.ones(9, bool), settings)
    np.testing.assert_allclose(found, reference_scores(query, pairs, settings), atol=1e-4)


def test_padding_of_the_short_list_changes_nothing(rng):
    settings = MdsSettings(dim=3)
    query, pairs = rng.random(8).astype(np.float32), rng.random((8, 8)).astype(np.float32)
    expected = scores(query[:6], pairs[:6, :6], np.ones(6, bool), settings)
    found = scores(query, pairs, np.arange(8) < 6, settings)
    np.testing.assert_allclose(found[:6], expected, atol=1e-4)
    assert (found[6:] == -np.inf).all()


def test_renaming_images_renames_scores(rng):
    settings = MdsSettings(dim=5)
    query, pairs = rng.random(10).astype(np.float32), rng.random((10, 10)).astype(np.float32)
    order = rng.permutation(10)
    found = scores(query[order], pairs[order][:, order], np.ones(10, bool), settings)
    expected = scores(query, pairs, np.ones(10, bool), settings)
    np.testing.assert_allclose(found, expected[order], atol=1e-4)


def test_scores_can_be_batched_over_queries(rng):
    settings = MdsSettings(dim=3)
    query = rng.random((4, 6)).astype(np.float32)
    pairs = rng.random((4, 6, 6)).astype(np.float32)
    mask = np.ones((4, 6), bool)
    together = jax.vmap(lambda *parts: scores(*parts, settings))(query, pairs, mask)
    for row in range(4):
        alone = scores(query[row], pairs[row], mask[row], settings)
        np.testing.assert_allclose(together[row], alone, atol=1e-4)


@pytest.fixture
def two_landmarks():
    """Images 0-3 show one landmark and 4-7 another; all are neighbours of their like."""
    group = np.arange(8) // 4
    similarities = np.where(group[:, None] == group[None], 0.5, 0.1).astype(np.float32)
    np.fill_diagonal(similarities, 1)
    order = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return SimilarityGraph(order, np.take_along_axis(similarities, order, axis=1))


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
