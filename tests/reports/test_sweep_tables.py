import dataclasses

import numpy as np
import pytest

from delg_jax.evaluation import significance
from delg_jax.reports import sweep_tables
from delg_jax.reports.method_results import MethodResult
from delg_jax.reports.sweep_tables import difference_cells, interval_cells
from delg_jax.retrieval.methods import METHODS
from delg_jax.sweeps.sweep import Result, Run


def result(group, seed, maps=None, error="", **train):
    """A run whose methods have the same mAP in all protocols."""
    metrics = {"train": train} if train else {}
    if maps is not None:
        metrics["evaluate"] = {
            "methods": {
                method: {protocol: {"map": value} for protocol in ("easy", "medium", "hard")}
                for method, value in maps.items()
            }
        }
    return Result(Run(f"{group}{seed}", {"seed": seed}, ("train",), group), metrics, error)


def cells(table):
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


def test_a_spread_is_mean_and_sample_deviation():
    assert sweep_tables.spread([1.0, 2.0, 3.0]) == "2.00 ± 1.00"
    assert sweep_tables.spread([1.0, 3.0], "+") == "+2.00 ± 1.41"
    assert sweep_tables.spread([2.5, None]) == "2.50"
    assert sweep_tables.spread([None]) == sweep_tables.spread([]) == "-"


def test_a_sweep_has_a_row_per_setting():
    results = [
        result("a", 0, {"global": 10.0}),
        result("a", 1, {"global": 12.0}),
        result("b", 0, {"global": 5.0}),
        result("b", 1, error="broke"),
        result("c", 0, error="broke"),
    ]
    header, _, *rows = cells(sweep_tables.sweep_table(results))
    assert header == ["setting", "runs", "global M", "global H"]
    assert rows == [
        ["a", "2/2", "11.00 ± 1.41", "11.00 ± 1.41"],
        ["b", "1/2", "5.00", "5.00"],
        ["c", "0/1", "-", "-"],
    ]


def test_a_sweep_of_training_shows_validation():
    results = [result("a", seed, loss=9.0, validation_loss=1.0 + seed) for seed in (0, 2)]
    header, _, row = cells(sweep_tables.sweep_table(results))
    assert header == ["setting", "runs", "validation_loss"]
    assert row == ["a", "2/2", "2.00 ± 1.41"]


def test_a_sweep_without_validation_images_shows_the_loss():
    results = [result("a", seed, loss=1.0 + seed) for seed in (0, 2)]
    header, _, row = cells(sweep_tables.sweep_table(results))
    assert header == ["setting", "runs", "loss"]
    assert row == ["a", "2/2", "2.00 ± 1.41"]


def test_a_report_names_the_runs_that_are_not_in_the_table():
    results = [
        result("a|b", 0, {"global": 10.0}),
        result("a|b", 1, error="broke\nbadly"),
        result("a|b", 2, error="begun"),
    ]
    report = sweep_tables.sweep_report(results, ["a|b2"])
    table, _, notes = report.partition("\n\n")
    assert table == sweep_tables.sweep_table(results)
    assert "| a\\|b " in table
    assert " 1/3 " in table
    assert notes.splitlines() == [
        "1 of 3 runs are in the table.",
        "- failed: `a|b1`, broke badly",
        "- missing: `a|b2`, begun",
    ]
    assert sweep_tables.sweep_report(results[:1]) == sweep_tables.sweep_table(results[:1])


def test_a_protocol_that_was_not_measured_is_left_open():
    one = result("a", 0, {"global": 10.0})
    del one.metrics["evaluate"]["methods"]["global"]["hard"]
    found = cells(sweep_tables.sweep_table([one, result("b", 0, {"global": 5.0})]))
    assert found[2:] == [["a", "1/1", "10.00", "-"], ["b", "1/1", "5.00", "5.00"]]


def test_gains_are_paired_by_run():
    results = [
        result("a", 0, {"global": 10.0, "global+sp": 15.0}),
        result("a", 1, {"global": 50.0, "global+sp": 57.0}),
    ]
    _, _, row = cells(sweep_tables.gains_table(results))
    assert row == ["a, global+sp over global", *["+6.00 ± 1.41"] * 3]
    _, _, first, second = cells(sweep_tables.methods_table(results))
    assert first == ["a, global", *["30.00 ± 28.28"] * 3]
    assert second[0] == "a, global+sp"


@pytest.mark.parametrize(
    ("protocol", "metric", "title"),
    [("retrieval", "map@100", "mAP@100"), ("recognition", "gap", "GAP")],
)
def test_the_columns_of_google_landmarks_are_those_of_its_protocol(protocol, metric, title):
    results = []
    for seed, value in enumerate((20.0, 22.0)):
        scores = {"global": {protocol: {metric: value}}, "global+qe": {protocol: {metric: 30.0}}}
        metrics = {"evaluate": {"methods": scores}}
        results.append(Result(Run(f"a{seed}", {}, ("evaluate",), "a"), metrics))
    header, _, row = cells(sweep_tables.sweep_table(results))
    assert header == ["setting", "runs", f"global {title}", f"global+qe {title}"]
    assert row == ["a", "2/2", "21.00 ± 1.41", "30.00 ± 0.00"]
    header, _, row = cells(sweep_tables.gains_table(results))
    assert (header, row) == (["gain", title], ["a, global+qe over global", "+9.00 ± 1.41"])


def test_every_re_ranking_gains_over_its_search_and_the_report_says_so():
    searches = ("global", "local")
    values = {method: 20.0 if "+" in method else 10.0 for method in METHODS}
    results = [result("a", 0, values), result("b", 0, {"local+sp": 5.0})]
    _, _, *rows = cells(sweep_tables.gains_table(results))
    gaining = [f"a, {m} over {m.partition('+')[0]}" for m in METHODS if m not in searches]
    assert rows == [[name, *["+10.00"] * 3] for name in gaining]
    assert sweep_tables.sweep_report(results).endswith(sweep_tables.gains_table(results))


def test_the_average_precision_of_pairs_has_a_column():
    one = result("a", 0, {"local": 1.0})
    one.metrics["evaluate"]["pairs"] = {"average_precision": 40.0}
    header, _, row = cells(sweep_tables.sweep_table([one]))
    assert (header[-1], row[-1]) == ("pairs AP", "40.00")


METRICS = {
    "methods": {
        "global": {"easy": {"map": 50.0}, "hard": {"map": None}},
        "global+sp": {"easy": {"map": 61.25}, "hard": {"map": None}},
    },
    "intervals": {
        "global": {"easy": [40.0, 60.0], "hard": [None, None]},
        "global+sp": {"easy": [51.0, 70.5], "hard": [None, None]},
    },
    "comparisons": {
        "global+sp": {
            "easy": {
                "over": "global",
                "difference": 11.25,
                "low": -1,
                "high": 3,
                "p_value": 0.012,
                "queries": 70,
                "landmarks": 11,
            },
            "hard": {"over": "global", **dict.fromkeys(("difference", "low", "high", "p_value"))},
        }
    },
}


def test_intervals_and_gains_by_hand():
    header, rows = interval_cells(METRICS)
    assert len({len(row) for row in (header, *rows)}) == 1
    assert rows[0] == ["global", "easy", "50.00 [40.00, 60.00]", *["-"] * 5]
    gain = ["global", "70 (11)", "+11.25 [-1.00, +3.00]", "0.012", "0.012"]
    assert rows[2] == ["global+sp", "easy", "61.25 [51.00, 70.50]", *gain]
    assert rows[3] == ["global+sp", "hard", "-", "global", "-", "-", "-", "-"]


@pytest.mark.parametrize("lacking", ["intervals", "comparisons"])
def test_older_files_lack_them(lacking):
    found = interval_cells({name: part for name, part in METRICS.items() if name != lacking})
    if lacking == "intervals":
        assert found is None
    else:
        assert [row[3:] for row in found[1]] == [["-"] * 5] * 4
    assert interval_cells({}) is None


def test_differences_are_those_of_the_paired_test(rng):
    first = [*rng.uniform(0, 100, 9), None]
    second = [*rng.uniform(0, 100, 9), 3.0]
    precisions = {"easy": [None] * 10, "medium": first, "hard": first}
    landmarks = np.repeat(np.arange(5), 2)
    one = MethodResult(0, "global", {}, precisions, None, None, landmarks)
    other = dataclasses.replace(one, run=1, baseline=0, precisions=precisions | {"medium": second})
    _, rows = difference_cells({"1: global": one, "2: global": other})
    found = significance.paired(np.array(second, float), np.array(first, float), landmarks)
    low, high = found.difference.low, found.difference.high
    assert [row[:3] for row in rows] == [["2: global", p, "9 (5)"] for p in ("medium", "hard")]
    text = f"{found.difference.mean:+.2f} [{low:+.2f}, {high:+.2f}]"
    assert rows[0][3:] == [text, f"{found.p_value:.2g}", f"{min(1, 2 * found.p_value):.2g}"]
    assert rows[1][3:] == ["+0.00 [+0.00, +0.00]", "1", "1"]
    # Early versions did not write the landmarks: the difference stands without a test
    _, rows = difference_cells(
        {"1: global": one, "2: global": dataclasses.replace(other, landmarks=None)}
    )
    assert rows[0][2:] == ["9", f"{found.difference.mean:+.2f}", "-", "-"]


def test_one_run_is_compared_with_nothing():
    assert difference_cells({"global": MethodResult(0, "global", {}, {}, None, None)}) is None
