import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from delg_jax.data.synthetic.camera import homography_between, transform
from delg_jax.data.synthetic.facade import build_facade
from delg_jax.data.synthetic.random_streams import generator
from delg_jax.data.synthetic.render import render_view
from delg_jax.data.synthetic.street import build_street
from delg_jax.data.synthetic.views import KINDS

SIDE = 160
HALF = 5  # of a compared patch, pixels
SHIFT = 5.0  # of a wrong correspondence, pixels


def _render(seed, landmark, view, kind):
    facade = build_facade(seed, landmark, landmark, 320)
    rng = generator(seed, "view", landmark, view)
    return render_view(rng, facade, build_street(seed), kind, SIDE)


def _facade_points(seed, landmark):
    """Facade points well inside the silhouette, float [n, 2]."""
    solid = ndimage.binary_erosion(build_facade(seed, landmark, landmark, 320).solid, iterations=20)
    return np.argwhere(solid)[::149, ::-1].astype(float)


def _patches(image, centres, to_image):
    """Patches around points of one view, read through a homography from another's image."""
    offsets = np.arange(-HALF, HALF + 1)
    window = np.stack(np.meshgrid(offsets, offsets), axis=-1).reshape(-1, 2)
    points = transform(to_image, (centres[:, None] + window[None]).reshape(-1, 2)) - 0.5
    values = ndimage.map_coordinates(image.mean(axis=-1), points.T[::-1], order=1, cval=np.nan)
    return values.reshape(len(centres), -1)


def _correlation(a, b):
    a, b = a - a.mean(axis=1, keepdims=True), b - b.mean(axis=1, keepdims=True)
    return (a * b).sum(axis=1) / np.sqrt((a**2).sum(axis=1) * (b**2).sum(axis=1) + 1e-9)


@pytest.mark.parametrize("kind", ["mild", "oblique", "close"])
def test_homography_relates_the_pixels_of_two_views(kind, monkeypatch):
    for name in ("query", kind):  # what hides a facade is not on its plane
        monkeypatch.setitem(KINDS, name, dataclasses.replace(KINDS[name], occluders=(0, 0)))
    right, wrong = [], []
    for landmark in range(3):
        query, other = _render(4, landmark, 0, "query"), _render(4, landmark, 1, kind)
        centres = transform(query.homography, _facade_points(4, landmark))
        here = _patches(query.image, centres, np.eye(3))
        between = homography_between(query.homography, other.homography)
        there = _patches(other.image, centres, between)
        usable = ~np.isnan(here + there).any(axis=1) & (here.std(axis=1) > 12)
        right.append(_correlation(here, there)[usable])
        shifts = SHIFT * np.array([(1, 0), (-1, 0), (0, 1), (0, -1)])
        moved = [_patches(other.image, centres + shift[None], between) for shift in shifts]
        moved = [_correlation(here, np.nan_to_num(patch))[usable] for patch in moved]
        wrong.append(np.max(moved, axis=0))
    right, wrong = np.concatenate(right), np.concatenate(wrong)
    assert len(right) > 50
    assert np.median(right) > 0.75
    assert np.mean(right > wrong) > 0.85
    assert np.median(right) - np.median(wrong) > 0.2


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_box_is_in_the_image_and_around_the_facade(kind):
    photograph = _render(1, 2, 3, kind)
    height, width = photograph.image.shape[:2]
    assert photograph.image.dtype == np.uint8
    assert max(height, width) == SIDE
    x1, y1, x2, y2 = photograph.box
    assert 0 <= x1 < x2 <= width
    assert 0 <= y1 < y2 <= height
    facade = build_facade(1, 2, 2, 320)
    corners = [(0, 0), (facade.width, 0), (0, facade.height), (facade.width, facade.height)]
    outline = transform(photograph.homography, np.array(corners, float))
    low, high = outline.min(axis=0), outline.max(axis=0)
    assert (photograph.box[:2] >= low - 1.5).all()
    assert (photograph.box[2:] <= high + 1.5).all()


def test_a_view_is_the_same_every_time_and_views_differ():
    first, again, other = (
        _render(2, 1, 0, "mild"),
        _render(2, 1, 0, "mild"),
        _render(2, 1, 5, "mild"),
    )
    np.testing.assert_array_equal(first.image, again.image)
    np.testing.assert_array_equal(first.homography, again.homography)
    assert not np.allclose(first.homography, other.homography)


def test_light_changes_between_views():
    brightness = [_render(2, 1, view, "tilted").image.mean() for view in range(4)]
    assert np.ptp(brightness) > 15
