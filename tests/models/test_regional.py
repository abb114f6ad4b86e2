import jax.numpy as jnp
import numpy as np
import pytest
from scipy import ndimage

from delg_jax.models import regional


def reference(maps, share):
    """SciPy's mean filter of powers; its `mirror` reflects at the border positions."""
    powers = np.asarray(maps, np.float64) ** regional.POWER
    means = ndimage.uniform_filter(powers, (0, regional.WINDOW, regional.WINDOW, 0), mode="mirror")
    return share * means ** (1 / regional.POWER) + (1 - share) * maps


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (1, 7, 4, 2), (3, 9, 16, 1)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_equals_the_reference(rng, shape, share):
    maps = rng.uniform(0, 3, shape).astype(np.float32)
    np.testing.assert_allclose(regional.blend(maps, share), reference(maps, share), rtol=1e-5)


def test_an_impulse_spreads_over_its_region():
    maps = np.zeros((1, 9, 9, 1), np.float32)
    maps[0, 4, 4, 0] = 2.0
    found = np.asarray(regional.blend(maps, 1.0))[0, :, :, 0]
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 2.0 * 25 ** (-1 / 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_image_on_a_canvas_gets_what_it_gets_alone(rng):
    maps = rng.uniform(0, 3, (3, 8, 9, 2)).astype(np.float32)
    sizes = np.array([[8, 9], [3, 5], [1, 2]], np.int32)
    found = np.asarray(regional.blend(maps, 0.5, jnp.asarray(sizes)))
    for image, (rows, columns), together in zip(maps, sizes, found, strict=True):
        alone = regional.blend(image[None, :rows, :columns], 0.5)[0]
        np.testing.assert_allclose(together[:rows, :columns], alone, rtol=1e-6)


def test_no_share_and_constant_maps_change_nothing(rng):
    maps = rng.uniform(0, 3, (1, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(regional.blend(maps, 0.0), maps)
    constant = np.full((1, 4, 1, 1), 0.7, np.float32)
    np.testing.assert_allclose(regional.blend(constant, 0.5), constant, rtol=1e-6)


def test_zeros_stay_zeros():
    assert not np.asarray(regional.blend(np.zeros((1, 5, 5, 1), np.float32), 0.5)).any()
