import re
from functools import partial

import jax
import numpy as np
import pytest

from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings
from delg_jax.rerank.mds_solvers import classical_mds, smacof


def pairwise(points):
    return np.linalg.norm(points[:, None] - points[None], axis=-1).astype(np.float32)


def stress(distances, weights, points):
    """Weighted sum over pairs of squared errors."""
    return (weights * (distances - pairwise(points)) ** 2).sum() / 2


def reference_step(distances, weights, points):
    """One Guttman transform, by the pseudo-inverse and sums over pairs."""
    count = len(points)
    v, b = np.zeros((2, count, count))
    for i in range(count):
        for j in range(count):
            between = np.linalg.norm(points[i] - points[j])
            if i != j:
                v[i, j] = -weights[i, j]
                b[i, j] = -weights[i, j] * distances[i, j] / between if between > 0 else 0
    np.fill_diagonal(v, -v.sum(axis=1))
    np.fill_diagonal(b, -b.sum(axis=1))
    return np.linalg.pinv(v) @ b @ points


def problem(rng, count=9):
    distances = pairwise(rng.normal(size=(count, 4)))
    weights = rng.uniform(0.1, 1, (count, count)).astype(np.float32)
    weights = weights + weights.T
    np.fill_diagonal(weights, 0)
    return distances, weights, rng.normal(size=(count, 2)).astype(np.float32)


def test_two_points_by_hand():
    # Two points 1 apart that should be 3 apart are there after one step, centred
    distances = np.array([[0, 3], [3, 0]], np.float32)
    weights = np.array([[0, 0.5], [0.5, 0]], np.float32)
    found = smacof(distances, weights, np.array([[4.0], [5.0]], np.float32), 1)
    np.testing.assert_allclose(found, [[-1.5], [1.5]], atol=1e-6)


def test_a_step_equals_the_reference(rng):
    distances, weights, points = problem(rng)
    expected = reference_step(distances, weights, points)
    np.testing.assert_allclose(smacof(distances, weights, points, 1), expected, atol=1e-4)


def test_stress_falls(rng):
    distances, weights, points = problem(rng)
    found = [
        stress(distances, weights, np.asarray(smacof(distances, weights, points, n)))
        for n in range(6)
    ]
    assert (np.diff(found) < 0).all()


def test_classical_mds_of_points_is_a_fixed_point(rng):
    distances = pairwise(rng.normal(size=(12, 3)))
    weights = np.ones_like(distances)
    points = classical_mds(distances, 3)
    np.testing.assert_allclose(smacof(distances, weights, points, 5), points, atol=1e-4)


def test_a_wrong_distance_of_little_weight_matters_little(rng):
    distances = pairwise(rng.normal(size=(12, 2)))
    wrong = distances.copy()
    wrong[0, 5] = wrong[5, 0] = 9
    weights = np.ones_like(distances)
    weights[0, 5] = weights[5, 0] = 1e-3
    start = classical_mds(wrong, 2)
    before = np.abs(pairwise(np.asarray(start)) - distances).mean()
    found = pairwise(np.asarray(smacof(wrong, weights, start, 200)))
    assert np.abs(found - distances).mean() < 0.05 * before


@pytest.mark.parametrize("iterations", [0, 4])
def test_points_without_weight_go_to_the_origin_and_are_unseen(rng, iterations):
    distances, weights, points = problem(rng)
    padded = np.pad(weights, (0, 2))
    between = np.pad(distances, (0, 2), constant_values=7)
    start = np.pad(points, ((0, 2), (0, 0)), constant_values=3)
    found = smacof(between, padded, start, iterations)
    expected = smacof(distances, weights, points, iterations)
    np.testing.assert_allclose(found[:9], expected, atol=1e-4)
    np.testing.assert_allclose(found[9:], 0, atol=1e-6)


def test_coinciding_points_stay_finite():
    nothing = np.zeros((5, 2), np.float32)
    found = smacof(np.ones((5, 5), np.float32), np.ones((5, 5), np.float32), nothing, 3)
    assert (np.asarray(found) == 0).all()


def test_one_batched_factorization_waits_for_the_other():
    """Both at a time can wait for the threads of each other, on a CPU, for ever."""
    settings = MdsSettings(method="smacof", dim=4, iterations=2)
    embed = jax.jit(jax.vmap(partial(mds.embed, settings=settings)))
    compiled = embed.lower(np.zeros((3, 9, 9), np.float32), np.ones((3, 9), bool)).compile()
    entry = compiled.as_text().partition("ENTRY")[2]
    operands = {}
    for line in entry.splitlines():
        name, equals, rest = line.partition(" = ")
        if equals:
            operands[name.split("%")[-1]] = rest, re.findall(r"%([\w.-]+)", rest)
    (factor,) = (name for name, (rest, _) in operands.items() if "lapack_spotrf" in rest)
    seen, waiting = set(), [factor]
    while waiting:
        name = waiting.pop()
        if name in operands and name not in seen:
            seen.add(name)
            waiting += operands[name][1]
    assert any("lapack_ssyevd" in operands[name][0] for name in seen)
