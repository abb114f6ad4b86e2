import xml.etree.ElementTree as ET

import pytest

from delg_jax.reports.line_plot import line_plot


def read(svg):
    root = ET.fromstring(svg)
    lines = [e for e in root.iter() if e.tag.endswith("polyline")]
    corners = [
        [tuple(map(float, corner.split(","))) for corner in line.get("points").split()]
        for line in lines
    ]
    return corners, [e.text for e in root.iter() if e.tag.endswith("text")]


def test_equal_steps_are_equally_far_and_more_is_higher():
    curves = {"a < b": [[0, 0.2], [10, 0.4], [20, 0.6]], "empty": [], "two": [[5, 0.9]]}
    (line, single), texts = read(line_plot("title", "step", "share", curves))
    assert line[1][0] - line[0][0] == pytest.approx(line[2][0] - line[1][0], abs=0.2)
    assert line[0][1] - line[1][1] == pytest.approx(line[1][1] - line[2][1], abs=0.2)
    assert line[0][1] > line[1][1]
    assert line[0][0] < single[0][0] < line[1][0]
    assert {"title", "step", "share", "a < b", "two"} <= set(texts)
    assert "empty" not in texts


@pytest.mark.parametrize(
    ("points", "across", "upward"),
    [
        ([(1, 0.1), (300, 0.95)], ["0", "50", "100", "150", "200", "250", "300"], ("0", "1")),
        ([(1.1, 5000)], ["1", "1.2"], ("0", "5,000")),
        ([(2, -1.0), (4, 1.0)], ["2", "2.5", "3", "3.5", "4"], ("-1", "1")),
        ([(0, 0.0)], ["0", "0.2"], ("0", "0.2")),
    ],
)
def test_axes_are_round_and_hold_all_points(points, across, upward):
    (line,), texts = read(line_plot("title", "x axis", "y axis", {"one": points}))
    labels = texts[3:-1]
    assert labels[: len(across)] == across
    assert (labels[len(across)], labels[-1]) == upward
    for x, y in line:
        assert 70 <= x <= 630
        assert 40 <= y <= 400


@pytest.mark.parametrize("curves", [{}, {"one": []}, {"one": [(1, float("nan"))]}])
def test_refuses_what_cannot_be_drawn(curves):
    with pytest.raises(ValueError, match="curves"):
        line_plot("title", "x", "y", curves)
