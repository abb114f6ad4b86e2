import numpy as np
import pytest
from scipy import ndimage

from delg_jax.data.synthetic.camera import (
    LEVELS,
    MARGIN,
    Pyramid,
    footprint,
    homography_between,
    look_at,
    pixel_grid,
    transform,
    warp,
)

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


def _sample(pyramid, points, level):
    points = np.asarray(points, np.float32)
    return pyramid.sample(points, np.full(len(points), level, np.float32))


def test_texture_returns_at_its_pixel_centres(rng):
    texture = rng.random((32, 48, 3), np.float32)
    y, x = np.mgrid[:32, :48]
    points = np.stack([x.ravel() + 0.5, y.ravel() + 0.5], axis=-1)
    values = _sample(Pyramid(texture), points, 0.0)
    np.testing.assert_allclose(values.reshape(texture.shape), texture, atol=1e-5)


def test_between_pixels_it_is_bilinear(rng):
    texture = rng.random((32, 48, 1), np.float32)
    points = rng.uniform(1, 31, (200, 2))
    expected = ndimage.map_coordinates(texture[..., 0], (points.T - 0.5)[::-1], order=1)
    np.testing.assert_allclose(_sample(Pyramid(texture), points, 0.0)[:, 0], expected, atol=1e-4)


def test_levels_are_means_and_between_levels_it_is_linear(rng):
    texture = rng.random((32, 32, 1), np.float32)
    pyramid = Pyramid(texture)
    half = _sample(pyramid, [(5.0, 9.0)], 1.0)
    np.testing.assert_allclose(half[0], texture[8:10, 4:6].mean(axis=(0, 1)), atol=1e-5)
    whole = _sample(pyramid, [(5.0, 9.0)], 0.0)
    mixed = _sample(pyramid, [(5.0, 9.0)], 0.25)
    np.testing.assert_allclose(mixed, 0.75 * whole + 0.25 * half, atol=1e-5)


def test_levels_beyond_the_last_are_clipped(rng):
    pyramid = Pyramid(rng.random((32, 32, 2), np.float32))
    points = rng.uniform(0, 32, (20, 2))
    np.testing.assert_array_equal(
        _sample(pyramid, points, 99.0), _sample(pyramid, points, LEVELS - 1.0)
    )
    np.testing.assert_array_equal(_sample(pyramid, points, -3.0), _sample(pyramid, points, 0.0))


def test_outside_is_zero_unless_mirrored(rng):
    texture = 1 + rng.random((32, 48, 1), np.float32)
    outside = [(-8.0, 10.5), (60.0, 10.5), (10.5, -8.0), (10.5, 44.0)]
    assert (_sample(Pyramid(texture), outside, 0.0) == 0).all()
    both = Pyramid(texture, mirror=(True, True))
    inside = [(8.0, 10.5), (36.0, 10.5), (10.5, 8.0), (10.5, 20.0)]
    np.testing.assert_allclose(_sample(both, outside, 0.0), _sample(both, inside, 0.0), atol=1e-4)
    sides = _sample(Pyramid(texture, mirror=(True, False)), outside, 0.0)[:, 0]
    np.testing.assert_array_equal(sides > 0, [True, True, False, False])


def test_no_points(rng):
    pyramid = Pyramid(rng.random((16, 16, 4), np.float32))
    assert _sample(pyramid, np.zeros((0, 2)), 0.0).shape == (0, 4)


def test_sides_must_suit_the_levels():
    with pytest.raises(ValueError, match=f" {MARGIN}"):
        Pyramid(np.zeros((30, 32, 1), np.float32))


SIZE = (40, 24)


def _homography():
    camera = look_at(np.array([32.0, 16, 0]), (0.5, 0.1, 0.2), 60.0, 45.0, SIZE)
    return camera.facade_homography()


def test_grid_is_the_pixel_centres_in_row_major_order():
    grid = pixel_grid((3, 2))
    np.testing.assert_array_equal(
        grid, [(0.5, 0.5), (1.5, 0.5), (2.5, 0.5), (0.5, 1.5), (1.5, 1.5), (2.5, 1.5)]
    )


def test_footprint_inverts_the_homography_and_measures_its_area():
    texture = Pyramid(np.ones((32, 64, 1), np.float32))
    grid = pixel_grid(SIZE)
    seen = footprint(texture, _homography(), grid)
    np.testing.assert_allclose(transform(_homography(), seen.points), grid[seen.pixels], atol=1e-3)
    corners = np.array([(-0.5, -0.5), (0.5, -0.5), (-0.5, 0.5)])
    for pixel, level in list(zip(seen.pixels, seen.level, strict=True))[::97]:
        a, b, c = transform(np.linalg.inv(_homography()), grid[pixel][None, :] + corners)
        area = abs(np.linalg.det(np.stack([b - a, c - a])))
        assert abs(0.5 * np.log2(area) - level) < 0.05


def test_zoom_scales_points_and_level():
    texture = Pyramid(np.ones((64, 128, 1), np.float32), mirror=(True, True))
    once, twice = (footprint(texture, _homography(), pixel_grid(SIZE), zoom) for zoom in (1, 2))
    np.testing.assert_allclose(twice.points, 2 * once.points, rtol=1e-5)
    np.testing.assert_allclose(twice.level, once.level + 1, atol=1e-5)


def test_identity_copies_the_texture_and_leaves_the_rest_empty(rng):
    texture = rng.random((16, 32, 2), np.float32)
    image = warp(Pyramid(texture), np.eye(3), pixel_grid(SIZE), zoom=1.0, blur=0.0)
    image = image.reshape(24, 40, 2)
    np.testing.assert_allclose(image[:16, :32], texture, atol=1e-5)
    assert (image[16:] == 0).all()
    assert (image[:, 32:] == 0).all()


def test_a_plane_behind_the_camera_is_not_seen():
    texture = Pyramid(np.ones((16, 16, 1), np.float32), mirror=(True, True))
    image = warp(texture, -np.eye(3), pixel_grid(SIZE), zoom=1.0, blur=0.0)
    assert (image == 0).all()


def test_a_mirrored_plane_fills_the_image(rng):
    texture = 1 + rng.random((16, 16, 1), np.float32)
    image = warp(Pyramid(texture, (True, True)), np.eye(3), pixel_grid(SIZE), zoom=1.0, blur=0.0)
    assert image.min() >= 0.99
    np.testing.assert_allclose(image.reshape(24, 40)[:16, 16:32], texture[:, ::-1, 0], atol=1e-5)
