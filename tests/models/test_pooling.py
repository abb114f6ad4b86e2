import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from delg_jax.models import pooling
from delg_jax.models.pooling import POOLINGS, l2_norm, l2_normalize, pool


def reference(maps, kind, power, mask):
    """Loops over images; float64."""
    result = np.zeros((maps.shape[0], maps.shape[3]))
    for row, image, valid in zip(result, maps.astype(float), mask, strict=True):
        if not valid.any():
            continue
        values = image[valid]
        row[:] = {
            "avg": lambda v: v.mean(0),
            "max": lambda v: v.max(0),
            "gem": lambda v: (np.maximum(v, 1e-6) ** power).mean(0) ** (1 / power),
        }[kind](values)
    return result


def test_gem_by_hand():
    maps = jnp.asarray([[[[1.0, 0.0], [2.0, 4.0]]]])
    expected = [[((1 + 8) / 2) ** (1 / 3), (64 / 2) ** (1 / 3)]]
    np.testing.assert_allclose(pool(maps, "gem"), expected, rtol=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
@pytest.mark.parametrize(("batch", "rows", "columns", "channels"), [(1, 1, 1, 1), (4, 5, 7, 3)])
def test_equals_the_reference_over_ragged_masks(rng, kind, batch, rows, columns, channels):
    maps = rng.exponential(size=(batch, rows, columns, channels)).astype(np.float32)
    maps[rng.random(maps.shape) < 0.3] = 0.0
    mask = rng.random(maps.shape[:3]) < 0.5
    mask[0], mask[-1] = False, True
    found = pool(maps, kind, 3.0, jnp.asarray(mask))
    np.testing.assert_allclose(found, reference(maps, kind, 3.0, mask), rtol=1e-5, atol=1e-7)
    whole = reference(maps, kind, 3.0, np.ones_like(mask))
    np.testing.assert_allclose(pool(maps, kind), whole, rtol=1e-5, atol=1e-7)


def test_gem_goes_from_average_to_maximum(rng):
    maps = rng.uniform(0.1, 9, size=(2, 4, 5, 3)).astype(np.float32)
    np.testing.assert_allclose(pool(maps, "gem", 1.0), pool(maps, "avg"), rtol=1e-5)
    np.testing.assert_allclose(pool(maps, "gem", 5000.0), pool(maps, "max"), rtol=1e-3)
    by_power = np.stack([pool(maps, "gem", power) for power in (1.0, 2.0, 3.0, 10.0, 100.0)])
    assert (np.diff(by_power, axis=0) > 0).all()


@pytest.mark.parametrize("kind", POOLINGS)
def test_masked_features_do_not_matter(rng, kind):
    maps = rng.exponential(size=(2, 4, 5, 3)).astype(np.float32)
    mask = jnp.asarray(rng.random((2, 4, 5)) < 0.5)
    hidden = np.where(mask[..., None], maps, 1e30)
    np.testing.assert_array_equal(pool(maps, kind, 3.0, mask), pool(hidden, kind, 3.0, mask))


@pytest.mark.parametrize("kind", POOLINGS)
def test_order_of_positions_does_not_matter(rng, kind):
    maps = rng.exponential(size=(2, 4, 5, 3)).astype(np.float32)
    shuffled = rng.permutation(maps.reshape(2, 20, 3), axis=1).reshape(maps.shape)
    np.testing.assert_allclose(pool(maps, kind), pool(shuffled, kind), rtol=1e-6)


@pytest.mark.parametrize("kind", POOLINGS)
def test_nothing_at_all_is_zero_with_a_finite_gradient(kind):
    maps, mask = jnp.ones((2, 3, 3, 2)), jnp.zeros((2, 3, 3), bool).at[1].set(True)
    np.testing.assert_array_equal(pool(maps, kind, 3.0, mask), [[0, 0], [1, 1]])
    gradient = jax.grad(lambda m, p: jnp.sum(pool(m, kind, p, mask)), argnums=(0, 1))(maps, 3.0)
    assert all(np.isfinite(g).all() for g in gradient)
    assert not gradient[0][0].any()


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("power", [1.0, 3.0, 12.0, 60.0])
def test_gem_of_any_constant_is_that_constant(value, power):
    """Also where the power itself would leave the range of float32; the least value is 1e-6."""
    maps = jnp.full((1, 2, 2, 1), value)
    found, (by_map, by_power) = jax.value_and_grad(
        lambda m, p: jnp.sum(pool(m, "gem", p)), argnums=(0, 1)
    )(maps, power)
    np.testing.assert_allclose(found, max(value, 1e-6), rtol=1e-5)
    np.testing.assert_allclose(by_map, np.full((1, 2, 2, 1), 0.25 * (value > 1e-6)), rtol=1e-4)
    np.testing.assert_allclose(by_power, 0.0, atol=1e-6 * max(value, 1e-6))


@pytest.mark.parametrize("kind", POOLINGS)
def test_gradients(rng, kind):
    maps = rng.uniform(0.2, 2, size=(2, 3, 2, 2)).astype(np.float32)
    mask = jnp.asarray(rng.random((2, 3, 2)) < 0.7).at[:, 0, 0].set(True)
    check_grads(lambda m: pool(m, kind, 3.0, mask), (maps,), 1, ["rev"], rtol=1e-2)
    if kind == "gem":
        check_grads(lambda p: pool(maps, kind, p, mask), (3.0,), 1, ["rev"], atol=1e-3, rtol=1e-2)


def test_another_kind_is_refused():
    with pytest.raises(ValueError, match="kind .='mac'.*gem"):
        pool(jnp.ones((1, 1, 1, 1)), "mac")


def test_l2_normalize_gives_unit_vectors(rng):
    vectors = rng.normal(size=(4, 5)).astype(np.float32)
    expected = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    np.testing.assert_allclose(l2_normalize(vectors), expected, rtol=1e-6)
    np.testing.assert_allclose(l2_normalize(vectors.T, axis=0), expected.T, rtol=1e-6)
    np.testing.assert_allclose(l2_norm(vectors), np.linalg.norm(vectors, axis=1), rtol=1e-6)


@pytest.mark.parametrize("function", [l2_norm, l2_normalize])
def test_a_zero_vector_stays_zero_with_a_finite_gradient(function):
    zeros = jnp.zeros((2, 3))
    assert not function(zeros).any()
    assert np.isfinite(jax.grad(lambda v: jnp.sum(function(v)))(zeros)).all()


def reference_of_regions(maps, share):
    """SciPy's mean filter of powers; its `mirror` reflects at the border positions."""
    powers = np.asarray(maps, np.float64) ** pooling.REGION_POWER
    means = ndimage.uniform_filter(
        powers, (0, pooling.REGION_SIDE, pooling.REGION_SIDE, 0), mode="mirror"
    )
    return share * means ** (1 / pooling.REGION_POWER) + (1 - share) * maps


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (1, 7, 4, 2), (3, 9, 16, 1)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_equals_the_reference(rng, shape, share):
    maps = rng.uniform(0, 3, shape).astype(np.float32)
    np.testing.assert_allclose(
        pooling.blend_regions(maps, share), reference_of_regions(maps, share), rtol=1e-5
    )


def test_an_impulse_spreads_over_its_region():
    maps = np.zeros((1, 9, 9, 1), np.float32)
    maps[0, 4, 4, 0] = 2.0
    found = np.asarray(pooling.blend_regions(maps, 1.0))[0, :, :, 0]
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 2.0 * 25 ** (-1 / 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_image_on_a_canvas_gets_what_it_gets_alone(rng):
    maps = rng.uniform(0, 3, (3, 8, 9, 2)).astype(np.float32)
    sizes = np.array([[8, 9], [3, 5], [1, 2]], np.int32)
    found = np.asarray(pooling.blend_regions(maps, 0.5, jnp.asarray(sizes)))
    for image, (rows, columns), together in zip(maps, sizes, found, strict=True):
        alone = pooling.blend_regions(image[None, :rows, :columns], 0.5)[0]
        np.testing.assert_allclose(together[:rows, :columns], alone, rtol=1e-6)


def test_no_share_and_constant_maps_change_nothing(rng):
    maps = rng.uniform(0, 3, (1, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(pooling.blend_regions(maps, 0.0), maps)
    constant = np.full((1, 4, 1, 1), 0.7, np.float32)
    np.testing.assert_allclose(pooling.blend_regions(constant, 0.5), constant, rtol=1e-6)


def test_zeros_stay_zeros():
    assert not np.asarray(pooling.blend_regions(np.zeros((1, 5, 5, 1), np.float32), 0.5)).any()
