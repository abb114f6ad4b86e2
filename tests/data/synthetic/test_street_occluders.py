import numpy as np

from delg_jax.data.synthetic.camera import look_at
from delg_jax.data.synthetic.random_streams import generator
from delg_jax.data.synthetic.street import draw_occluders

FACADE = (120, 160)
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
