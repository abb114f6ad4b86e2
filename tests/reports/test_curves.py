import dataclasses

import numpy as np
import pytest

from delg_jax.reports.curves import (
    by_query,
    differences,
    precision_at_recall,
    precision_recall,
)
from delg_jax.reports.lanes import Lane


def lane(precisions=(), ranking=(), **fields):
    return Lane(
        **{"run": 0, "method": "global", "first": None, "rival": None} | fields,
        rankings={"medium": np.array(ranking, np.int32)},
        precisions={"medium": list(precisions)},
    )


def reference(order, positives, ignored):
    """Interpolated precision at 51 recalls, from its definition."""
    counted = [image for image in order if image >= 0 and image not in ignored]
    points = []
    for depth in range(1, len(counted) + 1):
        hits = sum(image in positives for image in counted[:depth])
        points.append((hits / len(positives), hits / depth))
    recalls = np.linspace(0, 1, 51)
    return [max([p for r, p in points if r >= level - 1e-9 and p], default=0) for level in recalls]


def test_precision_by_hand():
    # right, wrong, right, and one never found: precision 1 up to a third, 2/3 up to two thirds
    entry = {"easy": [3, 5], "hard": [8], "junk": [9]}
    curve = precision_at_recall(np.array([[3, 9, 1, 5, -1]]), [entry], "medium")
    np.testing.assert_allclose(curve[:17], 1.0)
    np.testing.assert_allclose(curve[17:34], 2 / 3)
    np.testing.assert_allclose(curve[34:], 0.0)


def test_precision_is_the_mean_of_the_definition_over_queries(rng):
    ranking = np.stack([rng.permutation(20) for _ in range(6)])
    ranking[0, 5:] = -1
    parts = [np.split(rng.permutation(20)[:8], (3, 6)) for _ in range(6)]
    truth = [{"easy": e.tolist(), "hard": h.tolist(), "junk": j.tolist()} for e, h, j in parts]
    truth[1] |= {"easy": [], "hard": []}
    for protocol in ("easy", "medium", "hard"):
        expected = []
        for order, entry in zip(ranking.tolist(), truth, strict=True):
            right = {"easy": ["easy"], "medium": ["easy", "hard"], "hard": ["hard"]}[protocol]
            positives = {i for name in right for i in entry[name]}
            ignored = {i for n in ("easy", "hard", "junk") if n not in right for i in entry[n]}
            if positives:
                expected.append(reference(order, positives, ignored))
        found = precision_at_recall(ranking, truth, protocol)
        np.testing.assert_allclose(found, np.mean(expected, axis=0))


def test_without_positives_there_is_no_curve():
    entry = {"easy": [], "hard": [], "junk": [1]}
    assert precision_at_recall(np.array([[0, 1]]), [entry], "medium") is None
    assert precision_recall({"a": lane(ranking=[[0, 1]])}, [entry], "medium") is None
    drawn = precision_recall({"a": lane(ranking=[[0, 1]])}, [entry | {"easy": [0]}], "medium")
    assert drawn.curves[0][0] == "a"
    assert drawn.title.startswith("Medium")


def test_queries_are_sorted_by_the_first_lane():
    sides = {"a": lane([30.0, None, 10.0, 20.0]), "b": lane([None, 5.0, 1.0, 100.0])}
    drawn, order = by_query(sides, [0, 1, 2, 3], "medium")
    assert order == [2, 3, 0]
    assert [path.count("M") for _, path in drawn.curves] == [3, 2]
    assert by_query({"a": lane([None])}, [0], "medium") is None
    assert by_query(sides, [3], "medium")[1] == [3]


def test_differences_are_sorted_and_left_out_where_there_are_none():
    one = lane([10.0, 50.0, None, 40.0])
    sides = {"1: a": one, "2: a": lane([20.0, 20.0, 3.0, 40.0], rival=0)}
    drawn, order = differences(sides, 1, range(4), "medium")
    assert order == [1, 3, 0]
    assert [label for label, _ in drawn.upward] == ["-30", "-15", "0", "15", "30"]
    same = dataclasses.replace(one, rival=0)
    assert differences({"1: a": one, "2: a": same}, 1, range(4), "medium") is None


@pytest.mark.parametrize("count", [1, 2])
def test_one_query_is_drawn_too(count):
    drawn, _ = by_query({"a": lane([50.0] * count)}, range(count), "medium")
    assert drawn.curves[0][1].count("M") == count
