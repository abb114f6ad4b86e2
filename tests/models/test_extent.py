import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.models import extent
from delg_jax.models.convention import CONVENTIONS
from delg_jax.models.resnet import ResNet

BACKBONES = [
    ("slim", 32),
    pytest.param("keras", 32, marks=pytest.mark.slow),
    ("keras", 16),
    pytest.param("torchvision", 32, marks=pytest.mark.slow),
    ("torchvision", 16),
]


@pytest.mark.parametrize(("convention", "conv4_stride"), BACKBONES)
def test_sizes_are_the_shapes_of_the_maps(convention, conv4_stride):
    """Rows of 33 ... 48 and columns of 49 ... 64: every remainder by 32 once."""
    network = ResNet("tiny", convention, conv4_stride)
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)
    for rows, columns in zip(range(33, 49), range(49, 65), strict=True):
        image = jax.ShapeDtypeStruct((1, rows, columns, 3), jnp.float32)
        maps = jax.eval_shape(network.apply, variables, image)
        sizes = np.array([[rows, columns]])
        conv4 = extent.conv4_sizes(sizes, CONVENTIONS[convention], conv4_stride)
        conv5 = extent.conv5_sizes(sizes, CONVENTIONS[convention])
        assert maps["conv4"].shape[1:3] == tuple(conv4[0])
        assert maps["conv5"].shape[1:3] == tuple(conv5[0])


def test_inside_by_hand():
    sizes = jnp.asarray([[1, 2], [0, 3], [2, 1]])
    expected = [[[1, 1, 0], [0, 0, 0]], [[0, 0, 0], [0, 0, 0]], [[1, 0, 0], [1, 0, 0]]]
    np.testing.assert_array_equal(extent.inside((3, 2, 3), sizes), np.array(expected, bool))


def test_inside_with_starts_by_hand():
    mask = extent.inside((1, 3, 4, 7), jnp.asarray([[1, 2]]), jnp.asarray([[1, 2]]))
    np.testing.assert_array_equal(mask[0], [[0, 0, 0, 0], [0, 0, 1, 1], [0, 0, 0, 0]])


def test_clear_outside_removes_even_nan(rng):
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    expected = np.zeros_like(maps)
    expected[0, :2, :3], expected[1, :3, :1] = maps[0, :2, :3], maps[1, :3, :1]
    dirty = np.where(expected == 0, np.nan, maps)
    sizes = jnp.asarray([[2, 3], [3, 1]])
    np.testing.assert_array_equal(extent.clear_outside(dirty, sizes), expected)
    assert extent.clear_outside(dirty, None) is dirty


def test_shift_moves_each_image_by_its_own_amount():
    images = np.zeros((2, 4, 8, 1), np.float32)
    images[:, 0, 0] = 1.0
    moved = extent.shift(jnp.asarray(images), jnp.asarray([[0, 0], [2, 1]]))
    assert np.argwhere(moved).tolist() == [[0, 0, 0, 0], [1, 2, 1, 0]]


def test_a_canvas_without_room_for_the_shift_is_refused():
    with pytest.raises(ValueError, match=" 4"):
        extent.shift(jnp.zeros((1, 6, 8, 3)), jnp.zeros((1, 2), jnp.int32))
