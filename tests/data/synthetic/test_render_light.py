import dataclasses

import numpy as np
import pytest

from delg_jax.data.synthetic.facade import COLOUR, GLASS, RELIEF, SLOPE, SOLID
from delg_jax.data.synthetic.render import Light, draw_light, expose, shade_surface

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


def test_what_stands_towards_the_sun_casts_a_shadow():
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
