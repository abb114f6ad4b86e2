import numpy as np
import pytest

from delg_jax.features import pyramid_level


@pytest.mark.parametrize(("stride", "scale"), [(16, 1.0), (32, 0.5), (32, 1.4142135)])
def test_centres_and_boxes_are_the_official_ones(rng, stride, scale):
    cells = rng.integers(0, 40, (20, 2))
    low = (stride * cells - 145) / scale  # the official box: [low, low + 290 / scale]
    expected = np.concatenate([low, low + 290 / scale], axis=1)
    centres = pyramid_level.centres(cells, stride, scale)
    boxes = pyramid_level.boxes(centres, np.full(20, 1 / scale, np.float32))
    np.testing.assert_allclose(boxes, expected, rtol=1e-5, atol=1e-3)
    np.testing.assert_allclose(centres, (expected[:, :2] + expected[:, 2:]) / 2, atol=1e-3)


def test_the_first_position_looks_at_the_corner():
    centres = pyramid_level.centres(np.array([[0, 0], [1, 2]]), 16, 2.0)
    assert centres.tolist() == [[0, 0], [8, 16]]
    assert centres.dtype == np.float32


def test_no_positions_have_no_boxes():
    none = pyramid_level.centres(np.zeros((0, 2), int), 16, 1.0)
    assert pyramid_level.boxes(none, np.zeros(0, np.float32)).shape == (0, 4)
