import xml.etree.ElementTree as ET

import pytest

from delg_jax.reports.log_plot import log_plot


def test_a_power_is_a_straight_line():
    root = ET.fromstring(log_plot("a < b", "N", "ms", {"one": [(1, 1), (10, 10), (100, 100)]}))
    (line,) = [e for e in root.iter() if e.tag.endswith("polyline")]
    corners = [tuple(map(float, corner.split(","))) for corner in line.get("points").split()]
    assert corners[1][0] - corners[0][0] == pytest.approx(corners[2][0] - corners[1][0], abs=0.2)
    assert corners[0][1] - corners[1][1] == pytest.approx(corners[1][1] - corners[2][1], abs=0.2)
    assert corners[0][1] > corners[1][1]


@pytest.mark.parametrize("curves", [{}, {"one": []}, {"one": [(1, 0)]}])
def test_refuses_what_has_no_logarithm(curves):
    with pytest.raises(ValueError, match="curves"):
        log_plot("title", "N", "ms", curves)
