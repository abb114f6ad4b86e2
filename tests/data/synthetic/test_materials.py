import numpy as np
import pytest

from delg_jax.data.synthetic.materials import WALLS, fractal, masonry, noise, wall


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
