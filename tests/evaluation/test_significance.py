import itertools
import math

import numpy as np
import pytest
from scipy import stats

from delg_jax.data.ground_truth import query_landmarks
from delg_jax.evaluation import gldv2, significance
from delg_jax.evaluation.significance import holm, interval, paired


@pytest.mark.parametrize(("count", "level"), [(2, 0.9), (23, 0.95), (70, 0.5), (400, 0.99)])
def test_intervals_are_quantiles_of_resampled_means(rng, count, level):
    values = rng.beta(0.4, 1.0, count)
    found = interval(values, None, level, 2000, seed=3)
    means = values[np.random.default_rng(3).integers(0, count, (2000, count))].mean(axis=1)
    expected = np.quantile(means, [(1 - level) / 2, (1 + level) / 2])
    assert found.mean == pytest.approx(values.mean(), abs=1e-15)
    np.testing.assert_allclose(found[1:], expected, rtol=0, atol=1e-9)
    assert found.low < found.mean < found.high


def test_an_interval_of_two_values_by_hand():
    # The means are 0, 1/2 and 1 with shares 1/4, 1/2 and 1/4: quantiles far from the steps
    assert interval([0.0, 1.0], level=0.8) == (0.5, 0.0, 1.0)
    assert interval([0.0, 1.0], level=0.4) == (0.5, 0.5, 0.5)


def test_intervals_hold_the_true_mean_as_often_as_they_say(rng):
    covered = 0
    for seed in range(300):
        found = interval(rng.random(40) < 0.4, None, 0.9, 400, seed)
        covered += found.low <= 0.4 <= found.high
    assert 0.84 < covered / 300 < 0.96


def test_a_larger_level_and_fewer_queries_widen_the_interval(rng):
    values = rng.random(80)
    widths = [
        found.high - found.low
        for found in (interval(values, level=0.5), interval(values), interval(values[:20]))
    ]
    assert widths[0] < widths[1] < widths[2]


def test_units_do_not_matter(rng):
    values = rng.beta(0.4, 1.0, 30)
    found = interval(values, resamples=500)
    percent = interval(100 * values + 7, resamples=500)
    np.testing.assert_allclose(percent, 100 * np.array(found) + 7)


def test_a_seed_decides_and_the_block_does_not(rng, monkeypatch):
    first, second = rng.random(33), rng.random(33)
    results = [paired(first, second, resamples=300, seed=seed) for seed in (0, 0, 1)]
    assert results[0] == results[1]
    assert results[0].difference.low != results[2].difference.low
    assert results[0].p_value != results[2].p_value
    for block in (1, 100, 1000):
        monkeypatch.setattr(significance, "_BLOCK", block)
        again = paired(first, second, resamples=300)
        np.testing.assert_allclose(again.difference, results[0].difference, rtol=0, atol=1e-15)
        assert again.p_value == results[0].p_value
        assert paired(first[:5], second[:5]).p_value == exact(first[:5] - second[:5])


def test_a_block_of_draws_is_bounded():
    sizes = [len(block) for block in significance._random_swaps(1000, 5000, seed=0)]
    assert sum(sizes) == 5000
    assert max(sizes) == 2**20 // 1000


def test_degenerate_values():
    np.testing.assert_equal(interval([0.3], resamples=50), (0.3, np.nan, np.nan))
    np.testing.assert_allclose(interval([0.1] * 9, resamples=50), [0.1] * 3)
    assert interval([0.0] * 9, resamples=50) == (0.0, 0.0, 0.0)
    for values in ([], [np.nan, np.nan], [None]):
        assert np.isnan(interval(values)).all()


def test_queries_without_a_value_are_left_out(rng):
    values = rng.random(20)
    holed = np.insert(values, [0, 7, 20], np.nan)
    assert interval(holed, resamples=300) == interval(values, resamples=300)
    assert interval([0.5, None, 1.0], resamples=300) == interval([0.5, 1.0], resamples=300)


def exact(differences):
    """Share of all swaps that reach the observed difference."""
    sums = [
        np.dot(signs, differences) for signs in itertools.product((-1, 1), repeat=len(differences))
    ]
    return np.mean(np.abs(sums) >= abs(sum(differences)) - 1e-9)


@pytest.mark.parametrize("count", [1, 2, 5, 10])
def test_with_few_queries_all_swaps_are_tried(rng, count):
    first, second = rng.random(count), rng.random(count)
    assert paired(first, second).p_value == exact(first - second)


@pytest.mark.parametrize("count", [4, 7, 10])
def test_equal_sums_are_not_lost_to_rounding(rng, count):
    """Tenths that add up to the same do so only up to rounding; whole numbers do exactly."""
    for _ in range(20):
        whole = rng.integers(-4, 5, count)
        assert paired(whole / 10, np.zeros(count)).p_value == exact(whole)


@pytest.mark.parametrize("shift", [0.0, 0.05, 0.3])
def test_many_queries_come_near_the_test_of_scipy(rng, shift):
    first = rng.random(60)
    second = first + shift + rng.normal(0, 0.2, 60)
    reference = stats.permutation_test(
        (first, second),
        lambda a, b, axis: np.abs(np.mean(a - b, axis=axis)),
        permutation_type="samples",
        alternative="greater",
        vectorized=True,
        n_resamples=10_000,
        rng=np.random.default_rng(1),
    )
    assert paired(first, second).p_value == pytest.approx(reference.pvalue, abs=0.025)


def test_drawn_swaps_approximate_the_exact_share(rng):
    first, second = rng.random(12), rng.random(12) + 0.15
    drawn = paired(first, second, resamples=4095).p_value  # one fewer than all of them
    assert drawn == pytest.approx(paired(first, second, resamples=4096).p_value, abs=0.025)
    assert paired(first, second, resamples=4096).p_value == exact(first - second)


def test_a_sure_difference_has_the_least_p_value_and_never_zero():
    found = paired(np.ones(50), np.zeros(50), resamples=999)
    assert found == ((1.0, 1.0, 1.0), 1 / 1000, 50, 50)


def test_p_values_are_uniform_where_there_is_no_difference(rng):
    found = [
        paired(rng.random(25), rng.random(25), resamples=200, seed=seed).p_value
        for seed in range(300)
    ]
    for level in (0.1, 0.5):
        assert abs(np.mean(np.array(found) <= level) - level) < 0.08


def test_a_comparison_has_the_interval_of_the_difference_and_a_sign(rng):
    first, second = rng.random(30), rng.random(30)
    forth = paired(first, second, resamples=400)
    assert forth.difference == interval(first - second, resamples=400)
    back = paired(second, first, resamples=400)
    assert back.difference.mean == -forth.difference.mean
    assert back.p_value == forth.p_value


def test_a_query_without_a_value_in_one_is_left_out_of_both():
    first, second = [0.5, None, 0.25, 0.75], [0.0, 1.0, np.nan, 0.5]
    found = paired(first, second)
    assert found == paired([0.5, 0.75], [0.0, 0.5])
    assert found.difference.mean == 0.375
    assert found.queries == 2


def test_degenerate_comparisons():
    assert paired([0.4], [0.1]).p_value == 1.0
    assert paired([0.4] * 20, [0.4] * 20) == ((0.0, 0.0, 0.0), 1.0, 20, 20)
    for values in ([], [np.nan] * 3):
        found = paired(values, values)
        assert np.isnan([*found.difference, found.p_value]).all()
        assert found.queries == 0


def test_landmarks_are_drawn_with_all_of_their_queries(rng):
    values, landmarks = rng.random(12), np.repeat([7, 3, 9, 5], [2, 5, 1, 4])
    values[4] = np.nan
    found = interval(values, landmarks, 0.9, 3000, seed=5)
    groups = [values[landmarks == number] for number in (3, 5, 7, 9)]
    draws = np.random.default_rng(5).integers(0, 4, (3000, 4))
    means = [np.nanmean(np.concatenate([groups[n] for n in draw])) for draw in draws]
    assert found.mean == pytest.approx(np.nanmean(values))
    np.testing.assert_allclose(found[1:], np.quantile(means, [0.05, 0.95]), atol=1e-12)


def test_the_queries_of_a_landmark_are_swapped_together(rng):
    first, second = rng.random((2, 20))
    landmarks = np.repeat([4, 1, 0, 2, 3], 4)
    found = paired(first, second, landmarks)
    sums = [(first - second)[landmarks == number].sum() for number in range(5)]
    assert found.p_value == exact(np.array(sums))
    assert (found.queries, found.landmarks) == (20, 5)
    assert found.difference == interval(first - second, landmarks)
    # The order of queries and the names of landmarks do not matter
    order = rng.permutation(20)
    again = paired(first[order], second[order], 10 - landmarks[order])
    assert again.p_value == pytest.approx(found.p_value)


def test_eleven_landmarks_give_no_smaller_p_value_than_they_can():
    found = paired(np.ones(55), np.zeros(55), np.repeat(np.arange(11), 5))
    assert found.p_value == 2 / 2**11


def test_a_single_landmark_says_nothing_about_others(rng):
    found = paired(rng.random(5), rng.random(5), [2] * 5)
    assert found.p_value == 1
    assert np.isnan(found.difference[1:]).all()
    assert np.isfinite(found.difference.mean)


def _correlated(rng, landmarks, effect):
    """Differences of five queries of each landmark, which share most of their noise."""
    shared = rng.normal(effect, 1.0, (landmarks, 1))
    return (shared + rng.normal(0, 0.5, (landmarks, 5))).ravel()


def test_correlated_queries_do_not_make_a_null_significant():
    """By landmark 5 % of true nulls are rejected at 5 %; query by query more than a quarter."""
    rng = np.random.default_rng(0)
    groups, rejected = np.repeat(np.arange(11), 5), {"landmarks": 0, "queries": 0}
    for _ in range(400):
        differences = _correlated(rng, 11, 0.0)
        zeros = np.zeros_like(differences)
        by_landmark = paired(differences, zeros, groups, resamples=2048).p_value
        by_query = paired(differences, zeros, resamples=500).p_value
        rejected["landmarks"] += by_landmark <= 0.05
        rejected["queries"] += by_query <= 0.05
    assert rejected["landmarks"] / 400 <= 0.06
    assert rejected["queries"] / 400 > 0.25


def test_a_planted_effect_is_found_by_landmark():
    rng, groups = np.random.default_rng(1), np.repeat(np.arange(11), 5)
    found = [paired(_correlated(rng, 11, 1.5), np.zeros(55), groups) for _ in range(50)]
    assert np.mean([one.p_value <= 0.05 for one in found]) > 0.9
    assert np.mean([one.difference.low < 1.5 < one.difference.high for one in found]) > 0.8


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, None, 0.6]) == [1.0, None, 1.0]
    assert holm([]) == []


def test_holm_keeps_the_share_of_tables_with_a_wrong_claim(rng):
    wrong = sum(min(holm(rng.random(8).tolist())) <= 0.05 for _ in range(2000))
    assert wrong / 2000 < 0.065


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: interval([[1.0]]), r"`values` \(shape \(1, 1\)\)"),
        (lambda: interval([1.0], level=95), r"`level` \(=95\)"),
        (lambda: interval([1.0], resamples=1), r"`resamples` \(=1\)"),
        (lambda: paired([1.0, 2.0], [1.0]), r"`first` \(of 2 values\).*the 1 of `second`"),
        (lambda: paired([1.0], [[1.0]]), r"`second` \(shape \(1, 1\)\)"),
        (lambda: interval([1.0, 2.0], [0]), r"`landmarks` \(shape \(1,\)\)"),
    ],
)
def test_misuse_is_named(call, message):
    with pytest.raises(ValueError, match=message):
        call()


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


@pytest.fixture
def values(rng):
    return {"easy": [*(100 * rng.random(20)).tolist(), None], "hard": [None] * 21}


def test_intervals_are_those_of_the_bootstrap(values):
    found = significance.intervals(values)
    expected = significance.interval(np.array(values["easy"][:-1]))
    assert found["easy"] == [expected.low, expected.high]
    assert found["easy"][0] < np.mean(values["easy"][:-1]) < found["easy"][1]
    assert found["hard"] == [None, None]


def test_equal_values_leave_no_doubt():
    assert significance.intervals({"easy": [25.0] * 4}) == {"easy": [25.0, 25.0]}


def test_re_rankings_are_compared_with_their_own_search():
    precisions = {"global": [10.0, 20.0, None], "local": [50.0, 50.0, 50.0]}
    precisions |= {"global+sp": [30.0, 40.0, None], "local+mds+global": [50.0, 40.0, 60.0]}
    methods = {name: {"hard": listed} for name, listed in precisions.items()}
    found = significance.comparisons(methods)
    assert found.keys() == {"global+sp", "local+mds+global"}
    # Two queries: of the 4 swaps, two reach the observed gain
    assert found["global+sp"]["hard"] == {
        "over": "global", "difference": 20.0, "low": 20.0, "high": 20.0, "p_value": 0.5,
        "queries": 2, "landmarks": 2,
    }  # fmt: skip
    assert found["local+mds+global"]["hard"]["over"] == "local"
    assert found["local+mds+global"]["hard"]["difference"] == 0
    assert found["local+mds+global"]["hard"]["p_value"] == 1
    assert -10 <= found["local+mds+global"]["hard"]["low"] < 0


def test_a_search_that_was_not_evaluated_is_compared_with_nothing():
    methods = {"global+sp": {"hard": [1.0]}, "local": {"hard": [1.0]}}
    assert significance.comparisons(methods) == {}
    assert significance.comparisons({"global": {}, "global+sp": {}}) == {}


def test_no_values_are_none_in_json():
    nothing = {"hard": [None, None]}
    found = significance.comparisons({"global": nothing, "global+sp": nothing})
    numbers = ("difference", "low", "high", "p_value")
    assert found["global+sp"]["hard"] == {
        "over": "global", **dict.fromkeys(numbers), "queries": 0, "landmarks": 0,
    }  # fmt: skip
    assert significance.intervals({"hard": []}) == {"hard": [None, None]}
