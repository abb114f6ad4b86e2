import itertools

import numpy as np
import pytest

from delg_jax.evaluation.gldv2 import average_precision


def test_by_hand():
    # Positives at ranks 1 and 3 of 4: (1/1 + 2/3) / 2
    scores, labels = np.array([3, 9, 5, 1]), np.array([True, True, False, False])
    for ties in ("together", "order"):
        assert average_precision(scores, labels, ties) == pytest.approx((1 + 2 / 3) / 2)


def test_ties_together_get_the_precision_at_the_end_of_the_tie():
    # 5 | 2 2 2 | 0 0, positives: the first, one of the twos, one of the zeros
    scores, labels = np.array([5, 2, 2, 2, 0, 0]), np.array([1, 1, 0, 0, 1, 0], bool)
    assert average_precision(scores, labels) == pytest.approx((1 + 2 / 4 + 3 / 6) / 3)
    assert average_precision(scores, labels, "order") == pytest.approx((1 + 2 / 2 + 3 / 5) / 3)


def test_ties_in_order_put_the_lower_index_first():
    scores = np.zeros(4)
    assert average_precision(scores, [True, False, False, False], "order") == 1.0
    assert average_precision(scores, [False, False, False, True], "order") == 0.25


def test_a_long_tie_in_order_keeps_its_order(rng):
    scores, labels = rng.integers(0, 2, 3000), rng.random(3000) < 0.1
    hits = np.concatenate([labels[scores == 1], labels[scores == 0]])
    expected = (np.cumsum(hits) / np.arange(1, 3001))[hits].mean()
    assert average_precision(scores, labels, "order") == pytest.approx(expected, abs=1e-12)


def by_thresholds(scores, labels):
    """Sum of precision times gain in recall over the distinct scores."""
    total, before = 0.0, 0.0
    for threshold in np.unique(scores)[::-1]:
        chosen = scores >= threshold
        recall = labels[chosen].sum() / labels.sum()
        total += (recall - before) * labels[chosen].mean()
        before = recall
    return total


@pytest.mark.parametrize(("count", "levels"), [(1, 1), (7, 3), (50, 4), (333, 1000), (400, 12)])
def test_equals_the_sum_over_thresholds(rng, count, levels):
    scores = rng.integers(0, levels, count)
    labels = rng.random(count) < 0.3
    labels[0] = True
    assert average_precision(scores, labels) == pytest.approx(by_thresholds(scores, labels))
    mixed = rng.permutation(count)
    assert average_precision(scores[mixed], labels[mixed]) == pytest.approx(
        average_precision(scores, labels)
    )
    assert average_precision(np.exp(scores / 100.0), labels) == average_precision(scores, labels)


def test_together_lies_between_the_best_and_the_worst_order():
    scores = np.array([2, 1, 1, 1, 1, 0])
    labels = np.array([1, 0, 0, 1, 1, 1], bool)
    orders = [
        average_precision(scores[list(order)], labels[list(order)], "order")
        for order in itertools.permutations(range(6))
    ]
    assert min(orders) < average_precision(scores, labels) < max(orders)


def test_positives_without_a_score_count_as_not_found():
    assert average_precision([2.0, 1.0], [True, False], positives=4) == 0.25
    assert average_precision([], [], positives=2) == 0.0


@pytest.mark.parametrize("count", [0, 3])
def test_without_positives_there_is_no_precision(count):
    assert np.isnan(average_precision(np.zeros(count), np.zeros(count, bool)))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (([1.0, 2.0], [True]), r"`scores` \(shape \(2,\)\).*`labels` \(shape \(1,\)\)"),
        (([[1.0]], [[True]]), r"`scores` \(shape \(1, 1\)\)"),
        (([1.0, np.nan], [True, False]), r"nan at 1"),
        (([1.0], [True], "random"), r"`ties` \(='random'\).*together, order"),
        (([1.0, 2.0], [True, True], "order", 1), r"`positives` \(=1\).*the 2 of"),
    ],
)
def test_misuse_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*arguments)
