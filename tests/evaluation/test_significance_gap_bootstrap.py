import math

import numpy as np
import pytest

from delg_jax.data.ground_truth import query_landmarks
from delg_jax.evaluation import gldv2, significance


@pytest.fixture
def sides(rng):
    solution = {f"q{n:02d}": rng.choice(9, rng.integers(0, 3), False).tolist() for n in range(30)}
    said = {
        name: {"class": int(rng.integers(5)), "score": float(rng.integers(6)) / 6}
        for name in list(solution)[::-1][:25]
    }
    return said, solution


def draws(solution, seed, count=50):
    """How often each query is drawn with its landmark."""
    _, groups = np.unique(query_landmarks(list(solution.values())), return_inverse=True)
    rng, landmarks = np.random.default_rng(seed), groups.max() + 1
    assert 5 < landmarks < len(solution)
    for _ in range(count):
        yield np.bincount(rng.integers(0, landmarks, landmarks), minlength=landmarks)[groups]


def drawn_again(said, solution, times):
    """The same queries as often as they were drawn, under names that keep the order."""
    copies = {q: [f"{q}-{n}" for n in range(k)] for q, k in zip(solution, times, strict=True)}
    return (
        {name: said[query] for query, names in copies.items() if query in said for name in names},
        {name: solution[query] for query, names in copies.items() for name in names},
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_the_interval_is_that_of_landmarks_drawn_with_replacement(sides, ignore):
    found = significance.gap_interval(*sides, ignore, resamples=50, seed=3)
    values = []
    for times in draws(sides[1], 3):
        values.append(gldv2.global_average_precision(*drawn_again(*sides, times), ignore))
    assert found.mean == gldv2.global_average_precision(*sides, ignore)
    np.testing.assert_allclose(found[1:], np.quantile(values, [0.025, 0.975]))
    assert found.low < found.mean < found.high


def test_the_order_of_names_changes_nothing(sides):
    said, solution = sides
    turned = dict(reversed(said.items()))
    assert significance.gap_interval(turned, solution) == significance.gap_interval(said, solution)


def test_perfect_predictions_leave_no_doubt():
    solution = {f"q{n}": [n] for n in range(4)} | {"none": []}
    said = {f"q{n}": {"class": n, "score": 1.0} for n in range(4)}
    assert significance.gap_interval(said, solution) == (1.0, 1.0, 1.0)


def test_nothing_predicted_is_zero_and_nothing_shown_is_no_number():
    assert significance.gap_interval({}, {"a": [1]}) == (0.0, 0.0, 0.0)
    for solution in ({}, {"a": []}):
        assert all(map(math.isnan, significance.gap_interval({}, solution)))


@pytest.mark.parametrize("ignore", [False, True])
def test_two_methods_are_compared_on_the_same_draws(sides, rng, ignore):
    said, solution = sides
    other = {name: {**one, "class": int(rng.integers(5))} for name, one in said.items()}
    found = significance.gap_paired(said, other, solution, ignore, resamples=50, seed=3)
    values = []
    for times in draws(solution, 3):
        drawn = [drawn_again(side, solution, times) for side in (said, other)]
        one, two = (gldv2.global_average_precision(*side, ignore) for side in drawn)
        values.append(one - two)
    np.testing.assert_allclose(found.difference[1:], np.quantile(values, [0.025, 0.975]))
    rarer = min(sum(v <= 0 for v in values), sum(v >= 0 for v in values))
    assert found.p_value == pytest.approx(min(1, 2 * (rarer + 1) / 51))
    assert found.queries == 30
    assert found.landmarks == len(set(query_landmarks(list(solution.values())).tolist()))
    turned = significance.gap_paired(other, said, solution, ignore, resamples=50, seed=3)
    assert turned.difference.mean == -found.difference.mean
    assert turned.p_value == found.p_value


def test_a_method_is_no_better_than_itself_on_another_scale(sides):
    said, solution = sides
    larger = {name: {**one, "score": 100 * one["score"]} for name, one in said.items()}
    found = significance.gap_paired(said, larger, solution)
    assert (tuple(found.difference), found.p_value) == ((0.0, 0.0, 0.0), 1.0)


def test_right_against_wrong_leaves_no_doubt():
    solution = {f"q{n}": [n] for n in range(30)}
    said = {f"q{n}": {"class": n, "score": 1.0} for n in range(30)}
    wrong = {name: {**one, "class": 99} for name, one in said.items()}
    found = significance.gap_paired(said, wrong, solution)
    assert (tuple(found.difference), found.p_value) == ((1.0, 1.0, 1.0), pytest.approx(2 / 1001))
    nothing = significance.gap_paired(said, wrong, {name: [] for name in solution})
    assert all(map(math.isnan, (*nothing.difference, nothing.p_value)))
