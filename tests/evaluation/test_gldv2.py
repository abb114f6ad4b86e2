import itertools

import numpy as np
import pytest

from delg_jax.evaluation import gldv2
from delg_jax.evaluation.gldv2 import average_precision
from delg_jax.rerank.spatial_verification import ENOUGH_INLIERS

LANDMARKS = {"a": [1], "b": [2, 3], "c": [], "d": [4], "e": []}


def said(**predictions):
    return {query: {"class": name, "score": score} for query, (name, score) in predictions.items()}


def test_global_average_precision_by_hand():
    # By score: b right (1/1), c shows none, a right (2/3), e shows none; d has no prediction
    predictions = said(a=(1, 0.5), b=(3, 0.9), c=(1, 0.7), e=(1, 0.1))
    found = gldv2.global_average_precision(predictions, LANDMARKS)
    assert found == pytest.approx((1 + 2 / 3) / 3)
    found = gldv2.global_average_precision(predictions, LANDMARKS, ignore_non_gt=True)
    assert found == pytest.approx((1 + 1) / 3)


def test_equal_scores_rank_by_the_id_of_the_query():
    # Not as given: a (right), b (wrong), d (right)
    predictions = said(d=(4, 0.5), b=(1, 0.5), a=(1, 0.5))
    found = gldv2.global_average_precision(predictions, LANDMARKS)
    assert found == pytest.approx((1 + 2 / 3) / 3)
    backwards = dict(reversed(predictions.items()))
    assert gldv2.global_average_precision(backwards, LANDMARKS) == found


def test_ties_together_do_not_depend_on_names():
    predictions = said(d=(4, 0.5), b=(1, 0.5), a=(1, 0.5), c=(1, 0.4))
    found = gldv2.global_average_precision(predictions, LANDMARKS, ties="together")
    assert found == pytest.approx((2 / 3 + 2 / 3) / 3)
    renamed = {"a": "z", "b": "y", "c": "c", "d": "d", "e": "e"}
    again = gldv2.global_average_precision(
        {renamed[query]: value for query, value in predictions.items()},
        {renamed[query]: value for query, value in LANDMARKS.items()},
        ties="together",
    )
    assert again == found


@pytest.mark.parametrize("count", [1, 6, 200])
def test_global_average_precision_equals_counting(rng, count):
    solution = {f"{n:03d}": list(rng.integers(0, 4, rng.integers(0, 3))) for n in range(count)}
    solution["000"] = [1]
    predictions = {
        query: {"class": int(rng.integers(0, 4)), "score": float(rng.integers(0, 9))}
        for query in rng.permutation(list(solution))[: 1 + count // 2]
    }
    ranked = sorted(predictions, key=lambda query: (-predictions[query]["score"], query))
    total, right = 0.0, 0
    for rank, query in enumerate(ranked, 1):
        if predictions[query]["class"] in solution[query]:
            right += 1
            total += right / rank
    total /= sum(1 for landmarks in solution.values() if landmarks)
    assert gldv2.global_average_precision(predictions, solution) == pytest.approx(total)


def test_a_perfect_recogniser():
    predictions = said(a=(1, 0.9), b=(2, 0.8), d=(4, 0.7), c=(1, 0.1))
    assert gldv2.global_average_precision(predictions, LANDMARKS) == 1.0
    assert gldv2.top1_accuracy(predictions, LANDMARKS) == 1.0


def test_top1_accuracy_by_hand():
    assert gldv2.top1_accuracy(said(a=(1, 0), b=(1, 9), c=(1, 9)), LANDMARKS) == 1 / 3
    assert gldv2.top1_accuracy({}, LANDMARKS) == 0.0


IMAGES = {"p": ["x", "y", "z"], "q": ["x"], "r": ["y"]}
# Hits at ranks 1 and 4 (the second x is none), at rank 2, and nowhere
FOUND = {"p": ["x", "x", "w", "z"], "q": ["w", "x"], "r": ["w", "x", "z", "v"]}


def test_retrieval_by_hand():
    aps = [(1 / 1 + 2 / 4) / 3, 1 / 2, 0]
    np.testing.assert_allclose(gldv2.average_precisions(FOUND, IMAGES), aps)
    assert gldv2.mean_average_precision(FOUND, IMAGES) == pytest.approx(np.mean(aps))
    precisions = np.array([[1, 1 / 2, 1 / 3, 2 / 4, 2 / 5], [0, 1 / 2, 1 / 3, 1 / 4, 1 / 5]])
    np.testing.assert_allclose(gldv2.mean_precisions(FOUND, IMAGES, 5), precisions.sum(0) / 3)
    assert gldv2.mean_median_position(FOUND, IMAGES) == pytest.approx(((1 + 2 + 101) / 3, 2))


def test_only_the_first_k_count():
    # p: a hit at rank 1 of the 2 that could be found among 2; q: at rank 2 of 1
    np.testing.assert_allclose(gldv2.average_precisions(FOUND, IMAGES, 2), [1 / 2, 1 / 2, 0])
    np.testing.assert_allclose(gldv2.average_precisions(FOUND, IMAGES, 1), [1, 0, 0])
    assert gldv2.mean_median_position(FOUND, IMAGES, 1) == pytest.approx(((1 + 2 + 2) / 3, 2))


def test_a_query_without_a_prediction_counts_as_wrong():
    assert gldv2.mean_average_precision({"q": ["x"]}, IMAGES) == pytest.approx(1 / 3)
    np.testing.assert_allclose(gldv2.mean_precisions({"q": ["x"]}, IMAGES, 2), [1 / 3, 1 / 6])
    assert gldv2.mean_median_position({}, IMAGES, 7) == (8.0, 8.0)


def test_a_query_with_nothing_to_find_is_left_out():
    solution, predictions = {**IMAGES, "s": []}, {**FOUND, "s": ["x"]}
    assert np.isnan(gldv2.average_precisions(predictions, solution)[3])
    for metric in (gldv2.mean_average_precision, gldv2.mean_precisions, gldv2.mean_median_position):
        np.testing.assert_array_equal(metric(predictions, solution), metric(FOUND, IMAGES))


def test_without_a_solution_there_is_no_number():
    assert np.isnan(gldv2.global_average_precision({}, {}))
    assert np.isnan(gldv2.top1_accuracy({}, {"a": []}))
    assert np.isnan(gldv2.mean_average_precision({}, {"a": []}))
    assert np.isnan(gldv2.mean_precisions({}, {}, 3)).tolist() == [True] * 3
    assert np.isnan(gldv2.mean_median_position({}, {})).all()


@pytest.mark.parametrize("count", [1, 5, 40])
def test_retrieval_equals_counting(rng, count):
    names = [f"{n}" for n in range(60)]
    solution = {f"{n}": list(rng.permutation(names)[: rng.integers(1, 20)]) for n in range(count)}
    found = {query: list(rng.choice(names, rng.integers(0, 30))) for query in solution}
    k, aps, places = 10, [], []
    for query, wanted in solution.items():
        seen, right, total, place = set(), 0, 0.0, k + 1
        for rank, image in enumerate(found[query][:k], 1):
            if image in wanted and image not in seen:
                right += 1
                total += right / rank
                place = min(place, rank)
            seen.add(image)
        aps.append(total / min(len(wanted), k))
        places.append(place)
    np.testing.assert_allclose(gldv2.average_precisions(found, solution, k), aps)
    positions = gldv2.mean_median_position(found, solution, k)
    assert positions == pytest.approx((np.mean(places), np.median(places)))


@pytest.mark.parametrize(
    ("metric", "predictions"),
    [
        (gldv2.global_average_precision, said(x=(1, 1))),
        (gldv2.top1_accuracy, said(x=(1, 1))),
        (gldv2.mean_average_precision, {"x": ["p"]}),
        (gldv2.mean_precisions, {"x": ["p"]}),
        (gldv2.mean_median_position, {"x": ["p"]}),
    ],
)
def test_an_unknown_query_is_named(metric, predictions):
    with pytest.raises(ValueError, match="'x'.*`solution`"):
        metric(predictions, {"a": []})


def test_k_must_be_positive():
    with pytest.raises(ValueError, match=r"`k` \(=0\)"):
        gldv2.mean_average_precision(FOUND, IMAGES, 0)


def test_combine_by_hand():
    # Scores 0.9 + 0, 0.5 + 1, 0.4 + 0.5, 0.3 + 1 (140 inliers count as 70)
    labels, inliers = [[7, 8, 7, 7]], [[0, 70, 35, 140]]
    similarities = [[0.9, 0.5, 0.4, 0.3]]
    for top, name, score in [(1, 8, 1.5), (2, 8, 1.5), (3, 7, 2.2), (4, 7, 3.1), (9, 7, 3.1)]:
        classes, scores = gldv2.combine(labels, similarities, inliers, top)
        assert classes.tolist() == [name]
        np.testing.assert_allclose(scores, [score])
    classes, scores = gldv2.combine(labels, similarities, None, 1)
    assert classes.tolist() == [7]
    assert scores.tolist() == [0.9]


def test_combine_breaks_ties_by_rank():
    # Images of one score: the two given first are taken; classes of one sum: the better image's
    ones = np.ones((1, 3))
    assert gldv2.combine([[5, 2, 2]], ones, None, 1)[0].tolist() == [5]
    assert gldv2.combine([[5, 2, 2]], ones, None, 2)[0].tolist() == [5]
    assert gldv2.combine([[5, 2, 2]], ones, None, 3)[0].tolist() == [2]
    assert gldv2.combine([[1, 2, 1]], [[0.25, 0.5, 0.25]], None, 3)[0].tolist() == [2]


def test_combine_passes_over_absent_images():
    labels = [[-1, 3, -1], [-1, -1, -1]]
    classes, scores = gldv2.combine(labels, [[9.0, -0.5, 8.0]] * 2, None, 2)
    assert classes.tolist() == [3, -1]
    np.testing.assert_array_equal(scores, [-0.5, np.nan])
    for shape in [(0, 4), (2, 0)]:
        classes, scores = gldv2.combine(np.zeros(shape, int), np.zeros(shape), None, 1)
        assert classes.tolist() == [-1] * shape[0]
        assert np.isnan(scores).all()


@pytest.mark.parametrize(("shape", "top"), [((1, 1), 1), ((5, 7), 3), ((20, 30), 10)])
def test_combine_equals_summing_in_a_dictionary(rng, shape, top):
    labels = rng.integers(-1, 4, shape)
    similarities = -np.sort(-rng.random(shape), axis=1)
    inliers = rng.integers(0, 2 * ENOUGH_INLIERS, shape)
    classes, scores = gldv2.combine(labels, similarities, inliers, top)
    for query in range(shape[0]):
        images = [
            (similarities[query, n] + min(inliers[query, n], 70) / 70, labels[query, n])
            for n in range(shape[1])
            if labels[query, n] >= 0
        ]
        sums = {}
        for score, name in sorted(images, key=lambda image: -image[0])[:top]:
            sums[name] = sums.get(name, 0.0) + score
        best = max(sums, key=sums.get, default=-1)
        assert classes[query] == best
        np.testing.assert_allclose(scores[query], sums.get(best, np.nan))


@pytest.mark.parametrize(
    ("labels", "inliers", "top", "message"),
    [
        ([[1, 2]], [[1, 2, 3]], 1, r"\[Q, M\]"),
        ([1, 2], None, 1, r"\[Q, M\]"),
        ([[1, 2]], None, 0, r"`top` \(=0\)"),
    ],
)
def test_combine_names_misuse(labels, inliers, top, message):
    with pytest.raises(ValueError, match=message):
        gldv2.combine(labels, np.ones(np.shape(labels)), inliers, top)


def test_an_image_to_find_that_is_listed_twice_counts_once():
    once, twice = {"p": ["x", "y"]}, {"p": ["x", "y", "x"]}
    found = {"p": ["x", "w", "y"]}
    for metric in (gldv2.average_precisions, gldv2.mean_precisions, gldv2.mean_median_position):
        np.testing.assert_array_equal(metric(found, twice), metric(found, once))
    assert gldv2.mean_average_precision({"p": ["x", "y"]}, twice) == 1


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
        (([1.0], [True], "random"), r"`ties` \(='random'\)"),
        (([1.0, 2.0], [True, True], "order", 1), r"`positives` \(=1\).* 2 "),
    ],
)
def test_misuse_is_named(arguments, message):
    with pytest.raises(ValueError, match=message):
        average_precision(*arguments)
