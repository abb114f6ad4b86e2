import numpy as np
import pytest

from delg_jax.data.synthetic.ornaments import ellipse, inset, opening, regular, square


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
