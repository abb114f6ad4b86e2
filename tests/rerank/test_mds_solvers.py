import numpy as np
import pytest

from delg_jax.rerank.distances import FORMS, distances
from delg_jax.rerank.mds_solvers import classical_mds, landmark_mds


def pairwise(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1).astype(np.float32)


def reference_mds(distances, dim):
    count = len(distances)
    centring = np.eye(count) - 1 / count
    values, vectors = np.linalg.eigh(-0.5 * centring @ distances.astype(float) ** 2 @ centring)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    return vectors * np.sqrt(np.where(values > 1e-6 * values[0], values, 0))


@pytest.mark.parametrize(("count", "dimension"), [(2, 1), (9, 3), (30, 5)])
def test_recovers_points_from_their_distances(rng, count, dimension):
    points = rng.normal(size=(count, dimension))
    found = np.asarray(classical_mds(pairwise(points), 8))
    assert found.shape == (count, 8)
    np.testing.assert_allclose(pairwise(found), pairwise(points), atol=1e-4)
    np.testing.assert_allclose(found[:, dimension:], 0, atol=2e-3)
    np.testing.assert_allclose(found.mean(axis=0), 0, atol=1e-5)


@pytest.mark.parametrize("dim", [1, 4, 40])
@pytest.mark.parametrize("form", FORMS)
def test_equals_the_reference_up_to_rotation(rng, form, dim):
    matrix = np.asarray(distances(rng.random((12, 12)).astype(np.float32), form, 0.8, power=0.5))
    found = np.asarray(classical_mds(matrix, dim))
    expected = reference_mds(matrix, dim)
    scale = np.abs(expected).max() ** 2
    np.testing.assert_allclose(found @ found.T, expected @ expected.T, atol=1e-4 * scale)


@pytest.mark.parametrize("embed", [classical_mds, landmark_mds])
def test_sign_is_fixed(rng, embed):
    points = np.asarray(embed(pairwise(rng.normal(size=(7, 3))), 3))
    assert (np.take_along_axis(points, np.abs(points).argmax(axis=0)[None], axis=0) > 0).all()


@pytest.mark.parametrize("landmarks", [5, 8, 11])
def test_masked_rows_are_zero_and_unseen(rng, landmarks):
    points = rng.normal(size=(8, 3))
    matrix = np.full((11, 11), 50, np.float32)
    matrix[:8, :8] = pairwise(points)
    mask = np.arange(11) < 8
    for found in (classical_mds(matrix, 4, mask), landmark_mds(matrix[:landmarks], 4, mask)):
        np.testing.assert_allclose(pairwise(found[:8]), pairwise(points), atol=1e-4)
        assert (found[8:] == 0).all()


@pytest.mark.parametrize("landmarks", [4, 7, 25])
def test_landmarks_recover_points_from_a_part_of_their_distances(rng, landmarks):
    points = rng.normal(size=(25, 3))
    found = np.asarray(landmark_mds(pairwise(points)[:landmarks], 5))
    assert found.shape == (25, 5)
    np.testing.assert_allclose(pairwise(found), pairwise(points), atol=1e-3)


def test_all_points_as_landmarks_is_classical_mds(rng):
    matrix = np.asarray(distances(rng.random((14, 14)).astype(np.float32), "chord", 0.8))
    for dim in (2, 6):
        expected, found = np.asarray(classical_mds(matrix, dim)), landmark_mds(matrix, dim)
        np.testing.assert_allclose(found, expected, atol=1e-3)


@pytest.mark.parametrize("value", [0.0, 1.0])
def test_equal_distances_stay_finite(value):
    matrix = np.full((6, 6), value, np.float32)
    np.fill_diagonal(matrix, 0)
    assert np.isfinite(classical_mds(matrix, 2)).all()
    assert np.isfinite(landmark_mds(matrix[:3], 2)).all()
    nothing = np.zeros(6, bool)
    assert (np.asarray(classical_mds(matrix, 2, nothing)) == 0).all()
    assert (np.asarray(landmark_mds(matrix[:3], 2, nothing)) == 0).all()
