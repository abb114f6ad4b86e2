import numpy as np
import pytest

from delg_jax.data.synthetic.materials import Canvas, family_style
from delg_jax.data.synthetic.ornaments import (
    ORNAMENTS,
    ellipse,
    frieze,
    inset,
    opening,
    regular,
    square,
)
from delg_jax.data.synthetic.world import generator

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


def test_square_is_centred_and_as_large_as_fits():
    assert square((0, 0, 10, 4)) == (3, 0, 7, 4)


def test_inset_moves_every_side_by_a_share_of_the_smaller_one():
    assert inset((0, 0, 10, 4), 0.25) == (1, 1, 9, 3)


def test_diamond_is_a_regular_polygon_of_four():
    corners = regular((0, 0, 2, 2), 4)
    np.testing.assert_allclose(corners, [(1, 0), (2, 1), (1, 2), (0, 1)], atol=1e-12)


def test_star_has_every_second_corner_nearer_to_the_middle():
    radius = np.linalg.norm(regular((-1, -1, 1, 1), 5, start=0.4), axis=1)
    np.testing.assert_allclose(radius, [1, 0.4] * 5)


@pytest.mark.parametrize("head", ["square", "arch", "pointed", "round"])
def test_opening_stays_in_its_box(head):
    points = opening((2, 3, 6, 11), head)
    assert (points >= np.array([[2, 3]]) - 1e-9).all()
    assert (points <= np.array([[6, 11]]) + 1e-9).all()


def test_ellipse_touches_all_sides_of_its_box():
    points = ellipse((0, 0, 8, 4))
    np.testing.assert_allclose([*points.min(axis=0), *points.max(axis=0)], [0, 0, 8, 4], atol=1e-9)
