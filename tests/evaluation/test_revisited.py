import json
from pathlib import Path

import numpy as np
import pytest

from delg_jax.data.ground_truth import protocol_sets
from delg_jax.evaluation import revisited
from delg_jax.evaluation.revisited import average_precision, evaluate

PROTOCOLS = ("easy", "medium", "hard")
LISTS = ("easy", "hard", "junk")


def check(result, protocol, mean, precisions, aps):
    assert result[protocol]["map"] == pytest.approx(mean, abs=1e-9)
    for kappa, precision in zip((1, 5, 10), precisions, strict=True):
        assert result[protocol][f"mp@{kappa}"] == pytest.approx(precision, abs=1e-9)
    assert len(result[protocol]["aps"]) == len(aps)
    for ours, theirs in zip(result[protocol]["aps"], aps, strict=True):
        if theirs is None or np.isnan(theirs):
            assert ours is None
        else:
            assert ours == pytest.approx(theirs, abs=1e-9)


def test_equals_the_original_code_on_the_stored_rankings(rng):
    # The file keeps, for each query, the role of the image at every rank (1 easy, 2 hard,
    # 3 junk), and what the original evaluation code prints; the image numbers are made up.
    golden = np.load(Path(__file__).with_name("revisited_golden.npz"))
    names = rng.permutation(golden["roles"].shape[1])
    ground_truth = [
        {name: names[roles == code] for code, name in enumerate(("easy", "hard", "junk"), 1)}
        for roles in golden["roles"]
    ]
    ranks = np.repeat(names[:, None], len(ground_truth), axis=1)
    result = evaluate(ranks, ground_truth)
    for row, protocol in enumerate(PROTOCOLS):
        check(result, protocol, golden["map"][row], golden["mp"][row], golden["aps"][row])


@pytest.mark.real
def test_equals_the_original_code_on_the_shared_rankings(shared):
    ranks = np.load(shared / "goldens" / "revisited_ranks.npz")["ranks"]
    expected = json.loads((shared / "goldens" / "revisited_expected.json").read_text())
    path = shared / "data" / "roxford5k_1614" / "gnd_roxford5k.json"
    result = evaluate(ranks, json.loads(path.read_text())["gnd"])
    for protocol in PROTOCOLS:
        theirs = expected[protocol]
        check(result, protocol, theirs["map"], theirs["mpr"], theirs["aps"])


ENTRY = {"bbx": [0, 0, 1, 1], "easy": [0, 1], "hard": [2], "junk": [3]}


def columns(*rankings):
    return np.stack(rankings, axis=1)


def test_average_precision_by_hand():
    # Trapezoids at ranks 0, 2 and 3 of 3 positives: (1 + 1)/2, (1/2 + 2/3)/2, (2/3 + 3/4)/2
    expected = (1 + (1 / 2 + 2 / 3) / 2 + (2 / 3 + 3 / 4) / 2) / 3
    assert average_precision(np.array([0, 2, 3]), 3) == pytest.approx(expected)


def test_a_positive_that_was_not_found_adds_nothing():
    assert average_precision(np.array([0]), 2) == pytest.approx(0.5)
    assert average_precision(np.array([], int), 2) == 0.0


@pytest.mark.parametrize(
    ("protocol", "positives", "ignored"),
    [("easy", {0, 1}, {2, 3}), ("medium", {0, 1, 2}, {3}), ("hard", {2}, {0, 1, 3})],
)
def test_sets_of_the_protocols(protocol, positives, ignored):
    found, left_out = protocol_sets(ENTRY, protocol)
    assert set(found) == positives
    assert set(left_out) == ignored


def test_unknown_protocol_is_named():
    with pytest.raises(ValueError, match="`protocol` .='strict'"):
        protocol_sets(ENTRY, "strict")


def test_perfect_rankings_score_one():
    # Best under every protocol at once: hard images are ignored by easy, easy ones by hard.
    result = evaluate(columns([3, 0, 1, 2, 4, 5]), [ENTRY])
    for protocol in PROTOCOLS:
        assert result[protocol]["map"] == 1.0
        assert result[protocol]["mp@1"] == result[protocol]["mp@5"] == 1.0
        assert result[protocol]["mp@10"] == 1.0


def test_worst_ranking_by_hand():
    result = evaluate(columns([5, 4, 3, 2, 1, 0]), [ENTRY])
    # Medium without junk: 5 4 | 2 1 0, positives at ranks 2, 3 and 4
    medium = ((0 + 1 / 3) / 2 + (1 / 3 + 2 / 4) / 2 + (2 / 4 + 3 / 5) / 2) / 3
    assert result["medium"]["map"] == pytest.approx(medium)
    assert result["hard"]["map"] == pytest.approx((0 + 1 / 3) / 2)
    assert result["medium"]["mp@1"] == 0.0
    assert result["medium"]["mp@10"] == pytest.approx(3 / 5)  # k ends with the last positive


def test_the_position_of_junk_never_counts(rng):
    clean = rng.permutation([0, 1, 2, 4, 5, 6, 7])
    for place in range(8):
        with_junk = np.insert(clean, place, 3)
        assert evaluate(columns(with_junk), [ENTRY]) == evaluate(
            columns(np.append(clean, 3)), [ENTRY]
        )


def test_queries_without_positives_are_left_out_of_the_means():
    empty = {"easy": [], "hard": [2], "junk": []}
    result = evaluate(columns([0, 1, 2, 3], [0, 1, 2, 3]), [ENTRY, empty])
    assert result["easy"]["aps"] == [1.0, None]
    assert result["easy"]["map"] == result["easy"]["mp@5"] == 1.0


def test_no_query_with_positives_gives_nan():
    result = evaluate(columns([0, 1]), [{"easy": [], "hard": [], "junk": [0]}])
    assert np.isnan(result["hard"]["map"])
    assert np.isnan(result["hard"]["mp@1"])


def test_entries_of_minus_one_are_skipped():
    padded = evaluate(columns([-1, 4, -1, 0, 2, 1, 3]), [ENTRY])
    assert padded == evaluate(columns([4, 0, 2, 1, 3]), [ENTRY])


def test_positives_missing_from_a_short_ranking_are_not_found():
    result = evaluate(columns([4, 5]), [ENTRY])
    assert result["medium"]["map"] == 0.0
    assert result["medium"]["mp@5"] == 0.0


def test_kappas_name_the_fields():
    assert {"map", "aps", "mp@3"} == set(evaluate(columns([0]), [ENTRY], kappas=(3,))["easy"])


def test_a_column_per_query_is_required():
    with pytest.raises(ValueError, match="1 queries"):
        evaluate(np.zeros((4, 2), int), [ENTRY])


def test_a_positive_that_was_not_found_ends_no_precision():
    # Of positives 0 and 1 the second is not there: 1 of 5, not 1 of 1
    entry = {"easy": [0, 1], "hard": [], "junk": []}
    found = evaluate(columns([0, 2, 3, 4, -1]), [entry], (1, 5))["easy"]
    assert (found["mp@1"], found["mp@5"]) == (1.0, pytest.approx(1 / 5))
    assert found["map"] == pytest.approx(1 / 2)


def test_a_query_that_ranks_nothing_scores_zero():
    found = evaluate(columns([0, 1, 2, 3], [-1] * 4), [ENTRY, ENTRY], (1, 5))
    for protocol in PROTOCOLS:
        assert found[protocol]["aps"] == [1.0, 0.0]
        assert found[protocol]["map"] == found[protocol]["mp@1"] == 0.5


def test_skips_never_improve_a_metric(rng):
    for _ in range(100):
        count = int(rng.integers(3, 12))
        lists = rng.choice(4, count, p=[0.3, 0.2, 0.1, 0.4])
        entry = {n: np.flatnonzero(lists == p).tolist() for p, n in enumerate(LISTS)}
        ranks = rng.permutation(count)
        whole = evaluate(columns(ranks), [entry])
        gone = rng.permutation(count)[: rng.integers(1, count)]
        gone = gone[lists[gone] < 2]  # those that were to be found
        partly = evaluate(columns(np.where(np.isin(ranks, gone), -1, ranks)), [entry])
        for protocol, metrics in whole.items():
            for name, value in metrics.items():
                if name != "aps" and not np.isnan(value):
                    assert partly[protocol][name] <= value + 1e-12


@pytest.mark.parametrize(
    ("lists", "names"),
    [
        ({"easy": [0, 0], "hard": [], "junk": []}, "easy .*0 twice"),
        ({"easy": [0], "hard": [], "junk": [0]}, "0 .*easy and junk"),
        ({"easy": np.array([1]), "hard": np.array([1]), "junk": []}, "1 .*easy and hard"),
    ],
)
def test_ground_truth_that_contradicts_itself_is_refused(lists, names):
    with pytest.raises(ValueError, match=rf"`ground_truth\[1\]`: .*{names}"):
        evaluate(columns([0, 1, 2], [0, 1, 2]), [dict.fromkeys(LISTS, []), lists])


def test_an_image_twice_in_a_ranking_is_refused():
    with pytest.raises(ValueError, match="`ranks` .*image 4 twice .*query 1"):
        evaluate(columns([0, 1, 2, -1, -1], [4, 0, 1, 4, -1]), [ENTRY, ENTRY])


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
