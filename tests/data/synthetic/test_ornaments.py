import numpy as np
import pytest

from delg_jax.data.synthetic.canvas import Canvas
from delg_jax.data.synthetic.materials import family_style
from delg_jax.data.synthetic.ornaments import ORNAMENTS, frieze
from delg_jax.data.synthetic.random_streams import generator

BOX = (10.0, 10.0, 50.0, 45.0)


def _drawing(ornament, seed, box=BOX):
    canvas = Canvas((64, 64), unit=1.0)
    ornament(canvas, generator(seed, "facade", 0), box, family_style(0, 0))
    return canvas.layers()


@pytest.mark.parametrize("ornament", [*ORNAMENTS, frieze], ids=lambda o: o.__name__)
def test_two_of_a_kind_differ_and_the_same_draws_agree(ornament):
    first, again, other = (_drawing(ornament, seed).colour for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    seen = (first > 0).any(axis=-1) | (other > 0).any(axis=-1)
    assert abs(first - other)[seen].mean() > 0.01


@pytest.mark.parametrize("ornament", ORNAMENTS, ids=lambda o: o.__name__)
@pytest.mark.parametrize("seed", range(5))
def test_ornaments_stay_about_their_box(ornament, seed):
    solid = _drawing(ornament, seed).solid > 0
    rows, columns = np.nonzero(solid)
    slack = 3  # strokes end round
    assert columns.min() >= BOX[0] - slack
    assert rows.min() >= BOX[1] - slack
    assert columns.max() <= BOX[2] + slack
    assert rows.max() <= BOX[3] + slack
