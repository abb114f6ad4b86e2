import dataclasses

import numpy as np
import pytest

from delg_jax.evaluation import significance
from delg_jax.reports.method_results import MethodResult
from delg_jax.reports.significance_tables import difference_cells, interval_cells

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
