import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest

from delg_jax.reports.charts import (
    Chart,
    by_query,
    differences,
    line_chart,
    precision_at_recall,
    precision_recall,
    training,
)
from delg_jax.reports.method_results import MethodResult
from tests.charts import read


def test_training_is_drawn_over_steps_from_zero():
    records = [
        {"step": 10, "loss": 4.0, "scale": 1.0},
        {"step": 20, "loss": 1.0, "validation_loss": 2.00000004, "scale": 1.0},
        {"step": 30, "loss": 0.5, "validation_loss": 3.0},
        {"step": 40, "loss": float("nan")},
    ]
    (drawn,) = training(records)
    assert (drawn.title, drawn.x_label, drawn.marks) == ("loss", "step", "line")
    assert drawn.x == [10, 20, 30]
    assert drawn.curves == {"loss": [4.0, 1.0, 0.5], "validation_loss": [None, 2.0, 3.0]}
    assert drawn.limits == (0.0, 4.0)


def test_losses_accuracies_and_sparsity_are_apart():
    metrics = ("global_loss", "validation_loss", "global_accuracy", "sparsity_conv4", "scale")
    records = [{"step": step, **dict.fromkeys(metrics, 0.5)} for step in (1, 2)]
    names = [list(drawn.curves) for drawn in training(records)]
    assert names == [["global_loss", "validation_loss"], ["global_accuracy"], ["sparsity_conv4"]]


def test_without_two_records_there_is_nothing_to_draw():
    assert training([]) == []
    assert training([{"step": 1, "loss": 1.0}]) == []
    (zeros,) = training([{"step": step, "loss": 0.0} for step in (1, 2)])
    assert zeros.limits == (0.0, 1.0)


def test_json_keeps_the_order_of_curves_and_refuses_what_is_no_number():
    curves = {"2": [1.0], "1": [None]}
    found = json.loads(Chart("title", "x", "y", [0], curves, (0.0, 1.0)).json())
    assert found["curves"] == [["2", [1.0]], ["1", [None]]]
    with pytest.raises(ValueError, match="JSON"):
        Chart("title", "x", "y", [0], {"a": [float("nan")]}, (0.0, 1.0)).json()


def result(precisions=(), ranking=(), **fields):
    return MethodResult(
        **{"run": 0, "method": "global", "first_stage": None, "baseline": None} | fields,
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
    assert precision_recall({"a": result(ranking=[[0, 1]])}, [entry], "medium") is None
    drawn = precision_recall({"a": result(ranking=[[0, 1]])}, [entry | {"easy": [0]}], "medium")
    assert list(drawn.curves) == ["a"]
    assert drawn.x == [2.0 * level for level in range(51)]
    assert drawn.curves["a"] == [100.0] * 51
    assert drawn.limits == (0.0, 100.0)
    assert drawn.title.startswith("Medium")


def test_queries_are_sorted_by_the_first_method():
    results = {"a": result([30.0, None, 10.0, 20.0]), "b": result([None, 5.0, 1.0, 100.0])}
    drawn = by_query(results, [0, 1, 2, 3], "medium")
    assert drawn.queries == [2, 3, 0]
    assert drawn.x == [0, 1, 2]
    assert drawn.curves == {"a": [10.0, 20.0, 30.0], "b": [1.0, 100.0, None]}
    assert (drawn.marks, drawn.protocol, drawn.limits) == ("dots", "medium", (0.0, 100.0))
    assert by_query({"a": result([None])}, [0], "medium") is None
    assert by_query(results, [3], "medium").queries == [3]


def test_differences_are_sorted_and_left_out_where_there_are_none():
    one = result([10.0, 50.0, None, 40.0])
    results = {"1: a": one, "2: a": result([20.0, 20.0, 3.0, 40.0], baseline=0)}
    drawn = differences(results, 1, range(4), "medium")
    assert drawn.queries == [1, 3, 0]
    assert drawn.curves == {"2: a": [-30.0, 0.0, 10.0]}
    assert (drawn.marks, drawn.limits) == ("bars", (-30.0, 30.0))
    same = dataclasses.replace(one, baseline=0)
    assert differences({"1: a": one, "2: a": same}, 1, range(4), "medium") is None


CURVES = {"a < b": [(0, 0.2), (10, 0.4), (20, 0.6)], "empty": [], "$two$": [(5, 0.9)]}


def test_equal_steps_are_equally_far_and_more_is_higher():
    (line, single), texts = read(line_chart("title", "step", "share", CURVES))
    np.testing.assert_allclose(line[2] - line[1], line[1] - line[0], atol=0.01)
    assert line[0, 1] > line[1, 1]
    assert line[0, 0] < single[0, 0] < line[1, 0]
    assert {"title", "step", "share", "a < b", "$two$"} <= set(texts)
    assert "empty" not in texts


@pytest.mark.parametrize(
    ("points", "labels"),
    [
        ([(1, 0.1), (300, 0.95)], {"0", "100", "200", "300", "0.2", "0.8"}),
        ([(1.1, 5000)], {"0", "1,000", "5,000"}),
        ([(2, -1.0), (4, 1.0)], {"2", "3", "4", "-1", "0", "1"}),
        ([(3, 0.0)], {"0"}),
    ],
)
def test_linear_axes_are_labelled_and_begin_at_0(points, labels):
    curves, texts = read(line_chart("title", "x axis", "y axis", {"one": points}))
    assert labels <= set(texts)
    assert len(curves[0]) == len(points)
    if min(y for _, y in points) >= 0:
        assert not [text for text in texts if text.startswith("-0.")]


def test_on_logarithmic_axes_a_power_is_a_straight_line_between_powers_of_ten():
    points = [(2, 3), (20, 30), (2000, 3000), (1e6, 1.5e6)]
    (line,), texts = read(line_chart("a < b", "N", "ms", {"one": points}, "log"))
    steps = np.diff(line, axis=0)
    np.testing.assert_allclose(steps[1], 2 * steps[0], atol=0.01)
    assert steps[0, 1] < 0 < steps[0, 0]
    assert [text for text in texts if text[0] == "1"] == [
        "1",
        "10",
        "100",
        "1,000",
        "10,000",
        "100,000",
        "1,000,000",
    ] + ["1", "10", "100", "1,000", "10,000", "100,000", "1,000,000", "10,000,000"]


@pytest.mark.slow
def test_the_same_curves_give_the_same_bytes_in_another_process_with_other_defaults(tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.hashsalt: other\n")
    program = (
        "from delg_jax.reports.charts import line_chart\n"
        "from tests.reports.test_charts import CURVES\n"
        "print(line_chart('title', 'x', 'y', CURVES), end='')"
    )
    command = [sys.executable, "-W", "error", "-c", program]
    other = subprocess.run(
        command,
        capture_output=True,
        check=True,
        text=True,
        env={"MATPLOTLIBRC": str(tmp_path), "PYTHONPATH": ":".join(sys.path)},
    )
    drawn = line_chart("title", "x", "y", CURVES)
    assert other.stdout == drawn
    assert "date" not in drawn
    assert "Matplotlib" not in drawn


@pytest.mark.parametrize(
    ("curves", "scale"),
    [
        ({}, "linear"),
        ({"one": []}, "log"),
        ({"one": [(1, float("nan"))]}, "linear"),
        ({"one": [(1, float("inf"))]}, "log"),
        ({"one": [(1, 0)]}, "log"),
    ],
)
def test_an_undrawable_setting_is_refused(curves, scale):
    with pytest.raises(ValueError, match="curves"):
        line_chart("title", "x", "y", curves, scale)
