import dataclasses

import numpy as np
import pytest
from scipy import ndimage

from delg_jax.data.synthetic.camera import homography_between, look_at, transform
from delg_jax.data.synthetic.facade import COLOUR, GLASS, RELIEF, SLOPE, SOLID, build_facade
from delg_jax.data.synthetic.render import (
    KINDS,
    Light,
    draw_light,
    draw_view,
    expose,
    render_view,
    shade_surface,
    visible_share,
)
from delg_jax.data.synthetic.street import build_street
from delg_jax.data.synthetic.world import generator


@pytest.fixture(scope="module")
def facade():
    return build_facade(0, 0, 0, 128)


@pytest.mark.parametrize("kind", sorted(KINDS))
def test_views_are_as_their_kind_asks(facade, kind):
    wanted = KINDS[kind]
    for view_id in range(4):
        view = draw_view(generator(0, "view", 0, view_id), facade, kind, 64)
        assert wanted.visible[0] <= view.visible <= wanted.visible[1]
        forward = view.camera.rotation[2]
        yaw = np.rad2deg(abs(np.arctan2(forward[0], forward[2])))
        assert wanted.yaw[0] - 1e-6 <= yaw <= wanted.yaw[1] + 1e-6
        assert view.camera.centre[1] < facade.height  # above the ground
        assert max(view.camera.size) == 64
        assert view.occluders.shape == (view.camera.size[1], view.camera.size[0], 4)


def test_visible_share_by_hand(facade):
    front = look_at(
        np.array([facade.width / 2, facade.height / 2, 0]), (0, 0, 0), 300.0, 60.0, (64, 64)
    )
    clear = np.zeros((64, 64))
    assert visible_share(facade, front, clear) == 1
    assert visible_share(facade, front, clear + 1) == 0
    corners = np.array([(0.0, 0), (facade.width, facade.height)])
    left, right = transform(front.facade_homography(), corners)[:, 0]
    clear[:, : round((left + right) / 2)] = 1
    assert visible_share(facade, front, clear) == pytest.approx(0.5, abs=0.08)


def test_points_outside_the_image_are_not_visible(facade):
    away = look_at(
        np.array([facade.width, facade.height / 2, 0]), (0, 0, 0), 300.0, 300.0, (64, 64)
    )
    share = visible_share(facade, away, np.zeros((64, 64)))
    assert 0 < share < 0.6


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


NOON = Light(
    direction=np.array([0.6, 0.0, 0.8]),
    ambient=0.5,
    colour=np.ones(3),
    gamma=1.0,
    sky=np.array([0.0, 0.0, 1.0]),
    shadow_edge=np.array([1.0, 0.0, -10.0]),
    blur=0.0,
    noise=0.0,
)


def _surface(count):
    surface = np.zeros((count, 8), np.float32)
    surface[:, COLOUR], surface[:, RELIEF], surface[:, SOLID] = 0.5, 100, 1
    return surface


def _lit(surface, light=NOON, above=100.0, x=0.5):
    count = len(surface)
    position = np.full((count, 2), x, np.float32)
    return shade_surface(surface, np.full(count, above, np.float32), position, light)


def test_slopes_towards_the_sun_are_brighter():
    surface = _surface(3)
    surface[:, SLOPE] = [(-20, 0), (0, 0), (20, 0)]  # the relief rises to the right in the last
    towards, flat, away = _lit(surface)[:, 0]
    assert flat == pytest.approx(0.5 * (0.5 + 0.5 * 1.5 * 0.8))
    assert away < flat < towards


def test_objects_towards_the_sun_cast_a_shadow():
    shadowed = _lit(_surface(1), above=200.0)[0, 0]
    assert shadowed == pytest.approx(0.5 * NOON.ambient)


def test_another_building_shadows_its_side_of_the_edge():
    light = dataclasses.replace(NOON, shadow_edge=np.array([1.0, 0.0, -0.5]))
    assert _lit(_surface(1), light, x=0.8)[0, 0] < 0.75 * _lit(_surface(1), light, x=0.2)[0, 0]


def test_panes_reflect_the_sky():
    surface = _surface(2)
    surface[1, GLASS] = 1
    wall, pane = _lit(surface)
    assert pane[2] > wall[2]
    assert pane[0] < wall[0]


def test_exposure_by_hand(rng):
    image = np.full((4, 6, 3), 0.25, np.float32)
    np.testing.assert_allclose(expose(rng, image, NOON), 64, atol=1)
    light = dataclasses.replace(NOON, colour=np.array([2.0, 1.0, 8.0]), gamma=2.0)
    np.testing.assert_allclose(expose(rng, image, light)[0, 0], [64, 16, 255], atol=1)


def test_noise_and_blur(rng):
    edge = np.zeros((32, 32, 3), np.float32)
    edge[:, 16:] = 1
    noisy = expose(rng, edge * 0 + 0.5, dataclasses.replace(NOON, noise=0.05)).astype(float)
    assert noisy.std() == pytest.approx(0.05 * 255, rel=0.1)
    blurred = expose(rng, edge, dataclasses.replace(NOON, blur=2.0))
    assert 20 < blurred[16, 14, 0] < blurred[16, 17, 0] < 235


def test_harsh_light_varies_more(rng):
    mild, harsh = ([draw_light(rng, value) for _ in range(200)] for value in (0.0, 1.0))
    assert np.std([light.colour[1] for light in harsh]) > np.std([li.colour[1] for li in mild])
    assert max(light.blur for light in mild) < max(light.blur for light in harsh)
    assert all(np.linalg.norm(light.direction) == pytest.approx(1) for light in mild)
    assert all(light.direction[1] < 0 for light in harsh)  # the sun is above
