import numpy as np
import pytest

from delg_jax.data.synthetic.camera import look_at, transform
from delg_jax.data.synthetic.facade import build_facade
from delg_jax.data.synthetic.views import KINDS, draw_view, visible_share
from delg_jax.data.synthetic.world import generator


@pytest.fixture(scope="module")
def facade():
    return build_facade(0, 0, 0, 128)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_views_are_as_their_kind_asks(facade, kind):
    wanted = KINDS[kind]
    for view_id in range(4):
        view = draw_view(generator(0, "view", 0, view_id), facade, kind, 64)
        assert wanted.visible[0] <= view.visible <= wanted.visible[1]
        forward = view.camera.rotation[2]
        yaw = np.rad2deg(abs(np.arctan2(forward[0], forward[2])))
        assert wanted.yaw[0] - 1e-6 <= yaw <= wanted.yaw[1] + 1e-6
        assert view.camera.centre[1] < facade.height  # above the ground
        assert max(view.camera.size) == 64
        assert view.occluders.shape == (view.camera.size[1], view.camera.size[0], 4)


def test_visible_share_by_hand(facade):
    front = look_at(
        np.array([facade.width / 2, facade.height / 2, 0]), (0, 0, 0), 300.0, 60.0, (64, 64)
    )
    clear = np.zeros((64, 64))
    assert visible_share(facade, front, clear) == 1
    assert visible_share(facade, front, clear + 1) == 0
    corners = np.array([(0.0, 0), (facade.width, facade.height)])
    left, right = transform(front.facade_homography(), corners)[:, 0]
    clear[:, : round((left + right) / 2)] = 1
    assert visible_share(facade, front, clear) == pytest.approx(0.5, abs=0.08)


def test_points_outside_the_image_are_not_visible(facade):
    away = look_at(
        np.array([facade.width, facade.height / 2, 0]), (0, 0, 0), 300.0, 300.0, (64, 64)
    )
    share = visible_share(facade, away, np.zeros((64, 64)))
    assert 0 < share < 0.6
