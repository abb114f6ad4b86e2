import numpy as np
import pytest

from delg_jax.evaluation import significance


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
