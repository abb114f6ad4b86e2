import math

import numpy as np
import pytest

from delg_jax.evaluation import gap_bootstrap, gldv2


@pytest.fixture
def sides(rng):
    solution = {f"q{n:02d}": rng.choice(5, rng.integers(0, 3), False).tolist() for n in range(30)}
    said = {
        name: {"class": int(rng.integers(5)), "score": float(rng.integers(6)) / 6}
        for name in list(solution)[::-1][:25]
    }
    return said, solution


def drawn_again(said, solution, times):
    """The same queries as often as they were drawn, under names that keep the order."""
    copies = {q: [f"{q}-{n}" for n in range(k)] for q, k in zip(solution, times, strict=True)}
    return (
        {name: said[query] for query, names in copies.items() if query in said for name in names},
        {name: solution[query] for query, names in copies.items() for name in names},
    )


@pytest.mark.parametrize("ignore", [False, True])
def test_the_interval_is_that_of_queries_drawn_with_replacement(sides, ignore):
    found = gap_bootstrap.interval(*sides, ignore, resamples=50, seed=3)
    rng, values = np.random.default_rng(3), []
    for _ in range(50):
        times = np.bincount(rng.integers(0, 30, 30), minlength=30)
        values.append(gldv2.global_average_precision(*drawn_again(*sides, times), ignore))
    assert found.mean == gldv2.global_average_precision(*sides, ignore)
    np.testing.assert_allclose(found[1:], np.quantile(values, [0.025, 0.975]))
    assert found.low < found.mean < found.high


def test_the_order_of_names_changes_nothing(sides):
    said, solution = sides
    turned = dict(reversed(said.items()))
    assert gap_bootstrap.interval(turned, solution) == gap_bootstrap.interval(said, solution)


def test_perfect_predictions_leave_no_doubt():
    solution = {f"q{n}": [n] for n in range(4)} | {"none": []}
    said = {f"q{n}": {"class": n, "score": 1.0} for n in range(4)}
    assert gap_bootstrap.interval(said, solution) == (1.0, 1.0, 1.0)


def test_nothing_predicted_is_zero_and_nothing_shown_is_no_number():
    assert gap_bootstrap.interval({}, {"a": [1]}) == (0.0, 0.0, 0.0)
    for solution in ({}, {"a": []}):
        assert all(map(math.isnan, gap_bootstrap.interval({}, solution)))
