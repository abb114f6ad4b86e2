import dataclasses

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.sweeps.sweep import Result, Run
from experiments.framework import table_cells as cells
from experiments.framework.experiment import Choice, Column, Row, Setting, map_columns
from experiments.framework.plan import Options
from tests.experiments.framework.test_plan import EXPERIMENT, SIZE


def metrics(precisions, method="global", landmarks=None):
    known = [p for p in precisions if p is not None]
    return {
        "methods": {method: {"medium": {"map": float(np.mean(known)) if known else None}}},
        "average_precisions": {method: {"medium": precisions}},
        "query_landmarks": list(range(len(precisions))) if landmarks is None else landmarks,
        "pairs": {"average_precision": 40.0, "low": 30.0, "high": 50.0, "listed": [30.0, 50.0]},
    }


def result(found=None, error=""):
    return Result(Run("r", {}, ("evaluate",), "r"), {"evaluate": found} if found else {}, error)


COLUMNS = map_columns("one", "One", ("medium",))


def experiment(rows, columns=COLUMNS, choice=None):
    size = dataclasses.replace(SIZE, data={"one": {}})
    return dataclasses.replace(
        EXPERIMENT, rows=rows, columns=columns, sizes={"quick": size}, claims=(), choice=choice
    )


def test_seeds_on_the_same_data_are_averaged_within_each_query(tmp_path):
    one = experiment((Row("a", (Setting("s"),)),))
    results = {
        ("s", "one", 0): result(metrics([10.0, None, 30.0, 20.0], landmarks=[0, 0, 1, 2])),
        ("s", "one", 1): result(metrics([50.0, None, 70.0, 40.0], landmarks=[0, 0, 1, 2])),
    }
    cell = cells.read(one, results, Options("quick", tmp_path, seeds=(0, 1)))["a", "One Medium"]
    np.testing.assert_array_equal(cell.per_query, [30, np.nan, 50, 30])
    np.testing.assert_array_equal(cell.clusters, [0, 0, 1, 2])
    assert cell.value == pytest.approx(110 / 3)
    assert 30 <= cell.low < cell.value < cell.high <= 50
    assert cell.chosen == ""


def test_seeds_with_data_of_their_own_are_clusters(tmp_path):
    one = experiment((Row("a", (Setting("s"),)), Row("b", (Setting("t"),))))
    size = dataclasses.replace(one.sizes["quick"], seed_draws_data=True)
    one = dataclasses.replace(one, sizes={"quick": size})
    results = {
        (name, "one", seed): result(metrics([base + seed, base, None]))
        for name, base in (("s", 10.0), ("t", 5.0))
        for seed in range(4)
    }
    found = cells.read(one, results, Options("quick", tmp_path, seeds=tuple(range(4))))
    first, second = found["a", "One Medium"], found["b", "One Medium"]
    np.testing.assert_array_equal(first.clusters, np.repeat(np.arange(4), 3))
    tested = cells.compare(first, second)
    assert (tested.queries, tested.landmarks) == (8, 4)
    assert tested.p_value == pytest.approx(2 / 2**4)


def test_a_failed_seed_fails_the_row(tmp_path):
    one = experiment((Row("a", (Setting("s"),)),))
    results = {("s", "one", 0): result(metrics([10.0])), ("s", "one", 1): result(None, "killed")}
    cell = cells.read(one, results, Options("quick", tmp_path, seeds=(0, 1)))["a", "One Medium"]
    assert cell.value is None
    assert not len(cell.per_query)


def test_metrics_without_landmarks_are_not_tested_query_by_query(tmp_path):
    old = metrics([10.0, 20.0])
    del old["query_landmarks"]
    with pytest.raises(UserError, match="query_landmarks"):
        cells.read(
            experiment((Row("a", (Setting("s"),)),)),
            {("s", "one", 0): result(old)},
            Options("quick", tmp_path),
        )


@pytest.mark.parametrize("interval", ["pairs", "pairs/listed"])
def test_a_number_without_queries_keeps_its_interval(tmp_path, interval):
    column = Column("pairs", "one", "pairs/average_precision", interval=interval)
    one = experiment((Row("a", (Setting("s"),)),), (column,))
    results = {("s", "one", 0): result(metrics([1.0]))}
    cell = cells.read(one, results, Options("quick", tmp_path))["a", "pairs"]
    assert (cell.value, cell.low, cell.high) == (40, 30, 50)
    assert cells.compare(cell, cell) is None
    results["s", "one", 1] = result(metrics([1.0]))
    cell = cells.read(one, results, Options("quick", tmp_path, seeds=(0, 1)))["a", "pairs"]
    assert (cell.value, cell.low) == (40, None)


def test_a_number_without_queries_keeps_the_comparison_of_its_evaluation(tmp_path):
    column = Column("gap", "one", "methods/{method}/r/gap", "", "i/{method}", "compared/{method}")
    setting, other = Setting("s"), Setting("t")
    rows = [Row(name, (s,), name[2:]) for name, s in (("s global", setting), ("s g+sp", setting))]
    one = experiment((*rows, Row("t global", (other,), "global")), (column,))
    gain = {"over": "global", "difference": 5.0, "low": None, "high": 9.0, "p_value": 0.25}
    gain |= {"queries": 7, "landmarks": 3}
    found = {
        "methods": {"global": {"r": {"gap": 1.0}}, "g+sp": {"r": {"gap": 6.0}}},
        "compared": {"g+sp": gain},
    }
    results = {(name, "one", 0): result(found) for name in ("s", "t")}
    got = cells.read(one, results, Options("quick", tmp_path))
    first, reranked, else_ = (got[row, "gap"] for row in ("s global", "s g+sp", "t global"))
    compared = cells.compare(reranked, first)
    np.testing.assert_equal(tuple(compared.difference), (5.0, np.nan, 9.0))
    assert (compared.p_value, compared.queries, compared.landmarks) == (0.25, 7, 3)
    assert cells.compare(first, reranked) is None
    assert cells.compare(reranked, else_) is None


@pytest.mark.parametrize("found", [None, {"methods": {}}, metrics([None, None])])
def test_cells_that_were_not_measured_are_empty(tmp_path, found):
    one = experiment((Row("a", (Setting("s"),)),))
    results = {("s", "one", 0): result(found, "failed")}
    cell = cells.read(one, results, Options("quick", tmp_path))["a", "One Medium"]
    assert (cell.value, cell.low, cell.high) == (None, None, None)


def test_metrics_without_queries_still_give_the_mean(tmp_path):
    one = experiment((Row("a", (Setting("s"),)),))
    old = metrics([10.0, 20.0])
    del old["average_precisions"]
    cell = cells.read(one, {("s", "one", 0): result(old)}, Options("quick", tmp_path))
    assert cell["a", "One Medium"].value == 15


def test_a_row_chooses_on_one_half_and_is_measured_on_the_other(tmp_path):
    choice = Choice(("One Medium",))
    rows = (Row("a", (Setting("x"), Setting("y"))), Row("b", (Setting("x"),)))
    # Landmarks 0 and 2 choose; the two queries of landmark 1 and the one of 3 measure
    landmarks = [0, 1, 1, 2, 0, 3]
    results = {
        ("x", "one", 0): result(metrics([10.0, 90.0, 80.0, 10.0, 10.0, 70.0], "global", landmarks)),
        ("y", "one", 0): result(metrics([20.0, 30.0, 40.0, 20.0, 20.0, 50.0], "global", landmarks)),
    }
    found = cells.read(experiment(rows, choice=choice), results, Options("quick", tmp_path))
    assert found["a", "One Medium"].chosen == "y"
    np.testing.assert_array_equal(found["a", "One Medium"].per_query, [30, 40, 50])
    np.testing.assert_array_equal(found["b", "One Medium"].per_query, [90, 80, 70])
    tested = cells.compare(found["b", "One Medium"], found["a", "One Medium"])
    assert tested.difference.mean == pytest.approx(40)
    assert tested.p_value == pytest.approx(0.5)  # of 2^2 exchanges two are as extreme
    assert (tested.queries, tested.landmarks) == (3, 2)


def test_on_a_tie_the_first_setting_is_chosen_and_a_failed_one_never(tmp_path):
    choice = Choice(("One Medium",))
    rows = (Row("a", (Setting("z"), Setting("x"), Setting("y"))),)
    equal = metrics([10.0, 10.0])
    results = {
        ("z", "one", 0): result(None, "failed"),
        ("x", "one", 0): result(equal),
        ("y", "one", 0): result(equal),
    }
    found = cells.read(experiment(rows, choice=choice), results, Options("quick", tmp_path))
    assert found["a", "One Medium"].chosen == "x"
