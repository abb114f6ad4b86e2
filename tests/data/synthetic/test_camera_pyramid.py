import numpy as np
import pytest
from scipy import ndimage

from delg_jax.data.synthetic.camera import LEVELS, MARGIN, Pyramid


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
    with pytest.raises(ValueError, match=f"multiples of {MARGIN}"):
        Pyramid(np.zeros((30, 32, 1), np.float32))
