import numpy as np
import pytest

from delg_jax.data.synthetic.camera import homography_between, look_at, transform

TARGET = np.array([100.0, 80.0, 0.0])
ANGLES = [(0.0, 0.0, 0.0), (0.6, 0.0, 0.0), (-0.5, 0.3, 0.0), (0.2, -0.1, 0.4)]


def _camera(angles):
    return look_at(TARGET, angles, distance=300.0, focal=150.0, size=(160, 120))


@pytest.mark.parametrize("angles", ANGLES)
def test_target_is_in_the_middle(angles):
    middle = transform(_camera(angles).facade_homography(), TARGET[None, :2])
    np.testing.assert_allclose(middle, [[80, 60]], atol=1e-9)


@pytest.mark.parametrize("angles", ANGLES)
def test_homography_is_the_projection_of_facade_points(angles, rng):
    camera = _camera(angles)
    points = rng.uniform(0, 200, (20, 2))
    seen = (np.pad(points, ((0, 0), (0, 1))) - camera.centre) @ camera.rotation.T
    expected = 150 * seen[:, :2] / seen[:, 2:] + np.array([[80, 60]])
    np.testing.assert_allclose(transform(camera.facade_homography(), points), expected)
    np.testing.assert_allclose(camera.rotation @ camera.rotation.T, np.eye(3), atol=1e-12)
    assert np.linalg.det(camera.rotation) == pytest.approx(1)


def test_front_view_by_hand():
    corners = transform(_camera((0, 0, 0)).facade_homography(), np.array([(0.0, 0), (200, 160)]))
    np.testing.assert_allclose(corners, [(80 - 50, 60 - 40), (80 + 50, 60 + 40)])


def test_signs_of_the_angles():
    right, up = _camera((0.5, 0, 0)), _camera((0, 0.5, 0))
    assert right.centre[0] < TARGET[0]  # to look to the right, it stands on the left
    assert up.centre[1] > TARGET[1]  # to look up, it stands below
    assert right.centre[2] < 0
    turned = transform(_camera((0, 0, 0.3)).facade_homography(), np.array([(150.0, 80.0)]))
    assert turned[0, 1] < 60  # the camera turns clockwise, so the picture turns the other way


def test_points_behind_the_camera_have_no_image():
    camera = look_at(np.zeros(3), (1.3, 0, 0), distance=10.0, focal=100.0, size=(64, 64))
    assert np.isnan(transform(camera.facade_homography(), np.array([(-500.0, 0.0)]))).all()


def test_homography_between_views_carries_points_over(rng):
    first, second = (_camera(angles).facade_homography() for angles in ANGLES[1:3])
    points = rng.uniform(0, 200, (20, 2))
    between = homography_between(first, second)
    np.testing.assert_allclose(
        transform(between, transform(first, points)), transform(second, points)
    )
    back = homography_between(second, first)
    np.testing.assert_allclose(back @ between, np.eye(3), atol=1e-9)
    np.testing.assert_allclose(homography_between(first, first), np.eye(3), atol=1e-9)
