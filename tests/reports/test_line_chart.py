import subprocess
import sys

import numpy as np
import pytest

from delg_jax.reports.line_chart import line_chart
from tests.charts import read

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


def test_the_same_curves_give_the_same_bytes_in_another_process_with_other_defaults(tmp_path):
    (tmp_path / "matplotlibrc").write_text("lines.linewidth: 9\nsvg.hashsalt: other\n")
    program = (
        "from delg_jax.reports.line_chart import line_chart\n"
        "from tests.reports.test_line_chart import CURVES\n"
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


def test_matplotlib_is_loaded_by_those_who_draw():
    program = (
        "import sys, delg_jax.cli.main, delg_jax.reports.html, delg_jax.reports.line_chart\n"
        "sys.exit('matplotlib' in sys.modules)"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


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
