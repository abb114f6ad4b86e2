import dataclasses

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.reports.method_results import (
    IGNORED,
    RIGHT,
    UNKNOWN,
    WRONG,
    changes,
    choose_queries,
    collect_results,
    ground_truth,
    group_runs,
    mean_precisions,
    top_images,
)
from delg_jax.reports.workdir_results import read
from tests.reports import workdirs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("methods")
    return read(workdirs.make(root / "run", root / "data"))


def test_methods_have_their_first_stage_and_baseline(run):
    found = collect_results([run, run])
    assert [
        (result.run, result.method, result.first_stage, result.baseline) for result in found
    ] == [
        (0, "global", None, None),
        (0, "global+sp", 0, None),
        (0, "local", None, None),
        (1, "global", None, 0),
        (1, "global+sp", 3, 1),
        (1, "local", None, 2),
    ]
    assert found[1].reference == 0
    assert found[3].reference == 0
    assert found[0].reference is None


def test_precisions_are_those_of_the_file_or_computed(run):
    stored = collect_results([run])
    computed = collect_results([dataclasses.replace(run, metrics={})])
    assert stored[1].precisions["medium"] == [100.0] * 4
    assert stored[1].precisions["hard"] == [100.0] * 3 + [None]
    for ours, theirs in zip(stored, computed, strict=True):
        for protocol, values in ours.precisions.items():
            np.testing.assert_allclose(
                np.array(values, float), np.array(theirs.precisions[protocol], float)
            )
    unknown = collect_results([dataclasses.replace(run, metrics={}, data=None)])
    assert unknown[0].precisions["easy"] == [None] * 4


def test_protocols_use_their_own_ranking(run):
    special = {"global": {"all": run.rankings["global"]["all"], "hard": np.zeros((4, 8), np.int32)}}
    (result,) = collect_results([dataclasses.replace(run, rankings=special)])
    assert not result.rankings["hard"].any()
    np.testing.assert_array_equal(result.rankings["easy"], special["global"]["all"])


def test_runs_on_the_same_data_are_grouped(run):
    other = dataclasses.replace(run, data=None, queries=None, database=None)
    renamed = dataclasses.replace(run)
    renamed.__dict__["names"] = (["other"], ["images"])
    empty = dataclasses.replace(run, rankings={})
    assert group_runs([run, renamed, empty, run]) == [[0, 3], [1]]
    assert group_runs([]) == []
    assert ground_truth([other, run]) is run.data.ground_truth
    assert ground_truth([other]) is None


def test_means_and_changes_leave_out_what_is_unknown(run):
    found = collect_results([run])
    easy = np.array([result.precisions["easy"] for result in found], float)
    np.testing.assert_allclose(mean_precisions(found, "easy"), easy.mean(axis=0))
    assert np.isnan(mean_precisions(found, "hard")[3])
    np.testing.assert_allclose(changes(found, 1, "easy"), easy[1] - easy[0])
    assert np.isnan(changes(found, 0, "easy")).all()


def test_queries_are_chosen_by_change_and_by_precision(run):
    base = collect_results([run])[:2]
    values = [[50.0, 10.0, None, 90.0], [55.0, 40.0, None, 40.0]]
    results = [
        dataclasses.replace(result, precisions={"medium": listed})
        for result, listed in zip(base, values, strict=True)
    ]
    assert choose_queries(results, "changed", 0) == [3, 1, 0, 2]
    assert choose_queries(results, "worst", 0) == [1, 0, 3, 2]
    assert choose_queries(results, "best", 2) == [3, 0]
    assert choose_queries(results[:1], "changed", 0) == [0, 1, 2, 3]
    with pytest.raises(UserError, match="--choose"):
        choose_queries(results, "nicest", 0)


ENTRY = {"easy": [4], "hard": [2], "junk": [7]}


def order(*images):
    return np.array(images, np.int32)


def test_kinds_ranks_and_moves_by_hand():
    first = order(0, 7, 1, 2, 4, 3)
    found = top_images(order(4, 7, 2, 0, 1, 3), first, ENTRY, "medium", 4)
    # image 7 takes no rank in either list
    assert found == [(4, RIGHT, 1, 4), (7, IGNORED, 0, 0), (2, RIGHT, 2, 3), (0, WRONG, 3, 1)]


def test_the_protocol_decides_what_is_ignored():
    found = top_images(order(4, 2, 7), None, ENTRY, "hard", 10)
    assert found == [(4, IGNORED, 0, 0), (2, RIGHT, 1, 0), (7, IGNORED, 0, 0)]


def test_without_ground_truth_nothing_is_known():
    found = top_images(order(3, -1, 1), order(1, 3), None, "easy", 2)
    assert found == [(3, UNKNOWN, 1, 2), (1, UNKNOWN, 2, 1)]
    assert top_images(order(), None, ENTRY, "easy", 5) == []
    assert top_images(order(-1, -1), None, ENTRY, "easy", 5) == []


def test_an_image_that_the_first_stage_left_out_has_no_rank_before():
    assert top_images(order(5), order(1, -1), ENTRY, "easy", 5) == [(5, WRONG, 1, 0)]
