import jax
import numpy as np
import pytest

from delg_jax.rerank import superglobal
from delg_jax.rerank.distances import FORMS, distances
from delg_jax.rerank.mds import MdsSettings, embed, scores
from tests.rerank.test_classical_mds import reference_mds
from tests.rerank.test_superglobal import reference_scores as superglobal_reference

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


@pytest.mark.parametrize("engine", METHODS, ids=str)
@pytest.mark.parametrize("form", ["chord", "reciprocal"])
def test_disconnected_or_equal_images_stay_finite(form, engine):
    settings = MdsSettings(distance=form, dim=4, neighbours=2, **engine)
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


@pytest.mark.parametrize("form", FORMS)
def test_all_forms_rank_by_similarity(form):
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
@pytest.mark.parametrize("weight", [0.0, 0.3, 1.0])
def test_scores_equal_the_reference(rng, weight, neighbours):
    settings = MdsSettings(dim=4, contrast=0.7, weight=weight, neighbours=neighbours)
    query, pairs = rng.random(9).astype(np.float32), rng.random((9, 9)).astype(np.float32)
    found = scores(query, pairs, np.ones(9, bool), settings)
    np.testing.assert_allclose(found, reference_scores(query, pairs, settings), atol=1e-4)


@pytest.mark.parametrize("engine", METHODS, ids=str)
def test_padding_of_the_short_list_changes_nothing(rng, engine):
    settings = MdsSettings(dim=3, distance="reciprocal", missing="largest", neighbours=2, **engine)
    query, pairs = rng.random(8).astype(np.float32), rng.random((8, 8)).astype(np.float32)
    expected = scores(query[:6], pairs[:6, :6], np.ones(6, bool), settings)
    found = scores(query, pairs, np.arange(8) < 6, settings)
    np.testing.assert_allclose(found[:6], expected, atol=1e-4)
    assert (found[6:] == -np.inf).all()


@pytest.mark.parametrize("engine", METHODS[:2], ids=str)
def test_renaming_images_renames_scores(rng, engine):
    settings = MdsSettings(dim=5, **engine)
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


def test_global_descriptors_join_by_the_square_root_of_their_share(rng):
    settings = MdsSettings(dim=4, weight=1.0, concat_weight=0.3)
    query, pairs = rng.random(7).astype(np.float32), rng.random((7, 7)).astype(np.float32)
    vectors = unit(rng.normal(size=(8, 5)))
    found = scores(query, pairs, np.ones(7, bool), settings, vectors)
    alone = scores(query, pairs, np.ones(7, bool), settings)
    expected = 0.3 * np.asarray(alone) + 0.7 * vectors[1:] @ vectors[0]
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_neighbours_are_the_step_of_superglobal(rng):
    settings = MdsSettings(dim=4, weight=0.6, neighbours=3, beta=0.2, concat_weight=0.0)
    query, pairs = rng.random(7).astype(np.float32), rng.random((7, 7)).astype(np.float32)
    vectors = unit(rng.normal(size=(8, 5)))
    found = scores(query, pairs, np.ones(7, bool), settings, vectors)
    step = superglobal.scores(vectors[0], vectors[1:], 3, 0.2, pooling="mean")
    np.testing.assert_allclose(found, 0.6 * step + 0.4 * query, atol=1e-5)


def test_smacof_fits_what_is_known_better_the_less_the_rest_weighs(rng):
    line = np.linspace(0, 1, 12)
    similarities = np.maximum(1 - 4 * np.abs(line[:, None] - line[None]), 0).astype(np.float32)
    wanted, errors = np.asarray(distances(similarities, "complement", 1.0)), []
    for weight in (1.0, 0.01):
        settings = MdsSettings(
            dim=2, distance="complement", method="smacof", missing_weight=weight, iterations=50
        )
        points = np.asarray(embed(similarities, np.ones(12, bool), settings, similarities > 0))
        found = np.linalg.norm(points[:, None] - points[None], axis=-1)
        errors.append(np.abs(found - wanted)[similarities > 0].mean())
    assert errors[1] < 0.5 * errors[0]
