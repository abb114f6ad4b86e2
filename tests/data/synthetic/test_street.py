import numpy as np
import pytest

from delg_jax.data.synthetic.camera import look_at, pixel_grid
from delg_jax.data.synthetic.street import build_street, draw_background, draw_occluders
from delg_jax.data.synthetic.world import generator

SIZE = (80, 60)
FACADE = (120, 160)


@pytest.fixture(scope="module")
def street():
    return build_street(0)


def _background(street, view, target=80.0, pitch=0.0):
    camera = look_at(np.array([60.0, target, 0]), (0.3, pitch, 0), 200.0, 90.0, SIZE)
    pixels = draw_background(
        generator(0, "view", 0, view), street, camera, pixel_grid(SIZE), FACADE
    )
    return pixels.reshape(60, 80, 3)


def test_background_fills_the_image(street):
    for view in range(6):
        image = _background(street, view)
        assert image.min() >= 0
        assert image.max() < 1.6
        assert image[0].mean() > 0.2  # sky, nowhere black


def test_views_draw_their_own_background(street):
    np.testing.assert_array_equal(_background(street, 0), _background(street, 0))
    pairs = [(_background(street, view), _background(street, view + 1)) for view in range(4)]
    assert all(abs(one - other).mean() > 0.03 for one, other in pairs)


def test_ground_and_houses_are_seen_below_the_horizon_only(street):
    level = _background(street, 1)
    up = _background(street, 1, target=-400.0, pitch=1.2)  # sky alone, which is smooth
    assert abs(np.diff(up, axis=0)).max() < 0.5 * abs(np.diff(level, axis=0)).max()
    np.testing.assert_allclose(up[:10], level[:10], atol=1e-6)  # the same sky


def test_another_seed_has_other_houses(street):
    other = build_street(1)
    assert abs(_background(street, 0) - _background(other, 0)).mean() > 0.01


CAMERA = look_at(np.array([60.0, 80, 0]), (0.2, 0.05, 0), 200.0, 90.0, (80, 60))


def _draw(view, count, near=0.4):
    return draw_occluders(generator(0, "view", 0, view), CAMERA, FACADE, count, near)


def test_none_leave_the_image_clear():
    assert (_draw(0, 0) == 0).all()


def test_colour_is_multiplied_by_cover():
    layer = _draw(1, 8)
    assert layer.shape == (60, 80, 4)
    assert layer[..., 3].max() == 1
    assert (layer[..., :3] <= layer[..., 3:] + 0.01).all()


def test_more_and_nearer_things_hide_more():
    few, many, near = (
        np.mean([_draw(view, count, reach)[..., 3].mean() for view in range(12)])
        for count, reach in ((1, 0.3), (8, 0.3), (8, 0.8))
    )
    assert few < many < near


def test_draws_repeat():
    np.testing.assert_array_equal(_draw(3, 5), _draw(3, 5))
    assert abs(_draw(3, 5) - _draw(4, 5)).max() > 0
