import numpy as np

from delg_jax.evaluation import revisited


def test_scores_are_percent_and_none_where_no_query_has_positives():
    truth = [{"easy": [1], "hard": [], "junk": []}, {"easy": [], "hard": [], "junk": [2]}]
    truth.append({"easy": [0], "hard": [], "junk": []})
    ranks = np.array([[0, 1, 2], [0, 1, 2], [1, 0, 2]])
    found = revisited.by_protocol({"all": ranks}, truth, (1, 2))
    assert found.metrics["easy"] == {"map": 25.0, "mp@1": 0.0, "mp@2": 50.0}
    assert found.metrics["hard"] == {"map": None, "mp@1": None, "mp@2": None}
    assert found.average_precisions["easy"] == found.average_precisions["medium"]
    assert found.average_precisions["easy"] == [25.0, None, 25.0]
    assert found.average_precisions["hard"] == [None, None, None]
    assert found.landmarks == [0, 1, 2]
    assert found.intervals == {"easy": [25.0, 25.0], "medium": [25.0, 25.0], "hard": [None, None]}


def test_a_protocol_is_scored_by_its_own_ranking():
    truth = [{"easy": [0], "hard": [1], "junk": []}]
    rankings = {"all": np.array([[2, 1, 0]]), "easy": np.array([[0, 1, 2]])}
    found = revisited.by_protocol(rankings, truth, (1,))
    assert found.metrics["easy"]["map"] == found.average_precisions["easy"][0] == 100
    assert found.metrics["hard"]["map"] == found.average_precisions["hard"][0] < 100


def test_the_first_metric_is_the_mean_of_the_average_precisions(rng):
    truth = [{"easy": [n], "hard": [n + 1], "junk": []} for n in range(4)]
    ranks = rng.permuted(np.tile(np.arange(6), (4, 1)), axis=1)
    found = revisited.by_protocol({"all": ranks}, truth, (1,))
    for protocol, values in found.average_precisions.items():
        assert next(iter(found.metrics[protocol])) == "map"
        np.testing.assert_allclose(found.metrics[protocol]["map"], np.mean(values))
        low, high = found.intervals[protocol]
        assert low <= np.mean(values) <= high
