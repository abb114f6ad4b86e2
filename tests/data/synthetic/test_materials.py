import numpy as np
import pytest

from delg_jax.data.synthetic.materials import FLAT, WALLS, Canvas, fractal, masonry, noise, wall
from delg_jax.data.synthetic.ornaments import rectangle


@pytest.mark.parametrize("shape", [(32, 48), (48, 32), (1, 40)])
def test_noise_has_the_shape_and_range(rng, shape):
    values = noise(rng, shape, 8)
    assert values.shape == shape
    assert abs(values).max() < 1.5
    assert values.std() > 0.1


def test_finer_octaves_add_detail(rng):
    coarse, fine = (np.abs(np.diff(fractal(rng, (96, 96), 3, n), n=2)).mean() for n in (1, 5))
    assert fine > 1.5 * coarse


def test_running_bond_by_hand(rng):
    tone, relief = masonry(rng, (8, 16), course=4, length=8, irregular=0, contrast=0)
    joints = relief < 0
    np.testing.assert_array_equal(np.flatnonzero(joints[0]), [8])  # a whole brick first
    np.testing.assert_array_equal(np.flatnonzero(joints[5]), [4, 12])  # then half a one
    np.testing.assert_array_equal(joints.all(axis=1), np.arange(8) == 4)
    assert set(np.unique(tone[~joints])) == {1.0}
    assert (tone[joints] < 1).all()


@pytest.mark.parametrize("kind", sorted(WALLS))
def test_walls_have_tone_and_relief(rng, kind):
    tone, relief = wall(rng, kind, (80, 64), course=5)
    assert tone.shape == relief.shape == (80, 64)
    assert 0.8 < tone.mean() < 1.2
    assert tone.std() > 0.02
    assert relief.std() > 0


def test_a_shape_sets_colour_relief_and_material():
    canvas = Canvas((32, 16), unit=2.0)
    canvas.fill(rectangle((0, 0, 16, 8)), (255, 0, 0), FLAT, bare=True)
    canvas.fill(rectangle((8, 0, 16, 8)), (0, 0, 255), FLAT + 90, glass=1.0)
    layers = canvas.layers()
    assert layers.colour.shape == (16, 32, 3)
    np.testing.assert_allclose(layers.colour[8, 4], [1, 0, 0])
    np.testing.assert_allclose(layers.colour[8, 24], [0, 0, 1])
    assert (layers.bare[8, 4], layers.glass[8, 4], layers.relief[8, 4]) == (1, 0, FLAT)
    assert (layers.bare[8, 24], layers.glass[8, 24], layers.relief[8, 24]) == (0, 1, FLAT + 90)


def test_undrawn_pixels_are_not_solid():
    canvas = Canvas((16, 16), unit=1.0)
    canvas.stroke(np.array([(0.0, 8.0), (16.0, 8.0)]), 4, (255, 255, 255), FLAT)
    solid = canvas.layers().solid
    assert solid[8].min() == 1
    assert solid[[2, 13]].max() == 0


def test_edges_of_the_relief_are_slopes():
    canvas = Canvas((32, 8), unit=1.0)
    canvas.fill(rectangle((0, 0, 16, 8)), (9, 9, 9), FLAT - 60)
    row = canvas.layers().relief[4]
    assert (np.diff(row) >= 0).all()
    assert FLAT - 60 < row[15] < row[16] < FLAT
