import numpy as np

from delg_jax.data.synthetic.camera import Pyramid, footprint, look_at, pixel_grid, transform, warp

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
