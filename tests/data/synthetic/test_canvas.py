import numpy as np

from delg_jax.data.synthetic.canvas import FLAT, Canvas
from delg_jax.data.synthetic.ornaments import rectangle


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
