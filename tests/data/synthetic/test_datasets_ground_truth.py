import numpy as np
import pytest

from delg_jax.data.synthetic.camera import homography_between, look_at
from delg_jax.data.synthetic.datasets import (
    EASY_SCALE,
    EASY_TILT,
    EASY_VISIBLE,
    JUNK_VISIBLE,
    relevance,
    scale_and_tilt,
)

BOX = np.array([20.0, 10, 140, 110])


def _view(yaw=0.0, scale=1.0, roll=0.0):
    target = np.array([80.0, 60, 0])
    camera = look_at(target, (yaw, 0, roll), 1000 / scale, 1000.0, (160, 120))
    return camera.facade_homography()


@pytest.mark.parametrize("roll", [0.0, 0.7])
@pytest.mark.parametrize(("yaw", "scale"), [(0.0, 1.0), (0.5, 1.0), (-0.8, 2.0), (0.3, 0.4)])
def test_scale_and_tilt_of_an_oblique_view(yaw, scale, roll):
    between = homography_between(_view(), _view(yaw, scale, roll))
    measured = scale_and_tilt(between, np.array([80.0, 60.0]))
    squeeze = np.cos(yaw)  # a plane seen at an angle is narrower by its cosine
    np.testing.assert_allclose(measured, (scale * np.sqrt(squeeze), 1 / squeeze), rtol=1e-3)


def test_a_point_behind_the_other_camera_has_no_scale():
    away = np.diag([1.0, 1.0, -1.0])
    assert np.isnan(scale_and_tilt(away, np.array([3.0, 4.0]))).all()


@pytest.mark.parametrize(
    ("index", "visible", "expected"),
    [
        (_view(), 1.0, "easy"),
        (_view(roll=1.0), EASY_VISIBLE, "easy"),
        (_view(), EASY_VISIBLE - 0.01, "hard"),
        (_view(), JUNK_VISIBLE, "hard"),
        (_view(), JUNK_VISIBLE - 0.01, "junk"),
        (_view(yaw=np.arccos(1 / EASY_TILT) - 0.02), 1.0, "easy"),
        (_view(yaw=np.arccos(1 / EASY_TILT) + 0.02), 1.0, "hard"),
        (_view(scale=EASY_SCALE * 0.98), 1.0, "easy"),
        (_view(scale=EASY_SCALE * 1.02), 1.0, "hard"),
        (_view(scale=0.98 / EASY_SCALE), 1.0, "hard"),
        (np.diag([1.0, 1.0, -1.0]), 1.0, "hard"),
    ],
)
def test_relevance(index, visible, expected):
    assert relevance(_view(), BOX, index, visible) == expected
