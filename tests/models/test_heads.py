import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads
from scipy import ndimage

from delg_jax.models import heads
from delg_jax.models.heads import (
    POOLINGS,
    REDUCTIONS,
    Attention,
    CosineClassifier,
    DimReduction,
    SoftmaxClassifier,
)

# Compiled as a whole, as in the network: each single operation would be a program of its own
attend = jax.jit(heads.attend, static_argnames=("pooling", "normalize"))
blend_regions = jax.jit(heads.blend_regions, static_argnames="share")
l2_norm = jax.jit(heads.l2_norm, static_argnames="axis")
l2_normalize = jax.jit(heads.l2_normalize, static_argnames="axis")
norm_attention = jax.jit(heads.norm_attention)
pool = jax.jit(heads.pool, static_argnames="kind")


@functools.partial(jax.jit, static_argnums=0, static_argnames=("train", "mutable"))
def apply(module, variables, inputs, **kwargs):
    return module.apply(variables, inputs, **kwargs)


@jax.jit
@functools.partial(jax.value_and_grad, argnums=(0, 1))
def gem_and_gradients(maps, power):
    return jnp.sum(pool(maps, "gem", power))


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
    maps, mask = np.ones((2, 3, 3, 2), np.float32), np.zeros((2, 3, 3), bool)
    mask[1] = True
    np.testing.assert_array_equal(pool(maps, kind, 3.0, mask), [[0, 0], [1, 1]])
    gradient = jax.jit(jax.grad(lambda m, p: jnp.sum(pool(m, kind, p, mask)), argnums=(0, 1)))(
        maps, 3.0
    )
    assert all(np.isfinite(g).all() for g in gradient)
    assert not gradient[0][0].any()


@pytest.mark.parametrize("value", [0.0, 1e-12, 1e-3, 1e6])
@pytest.mark.parametrize("power", [1.0, 3.0, 12.0, 60.0])
def test_gem_of_any_constant_is_that_constant(value, power):
    """Also where the power itself would leave the range of float32; the least value is 1e-6."""
    found, (by_map, by_power) = gem_and_gradients(np.full((1, 2, 2, 1), value, np.float32), power)
    np.testing.assert_allclose(found, max(value, 1e-6), rtol=1e-5)
    np.testing.assert_allclose(by_map, np.full((1, 2, 2, 1), 0.25 * (value > 1e-6)), rtol=1e-4)
    np.testing.assert_allclose(by_power, 0.0, atol=1e-6 * max(value, 1e-6))


@pytest.mark.parametrize("kind", POOLINGS)
def test_gradients(rng, kind):
    maps = rng.uniform(0.2, 2, size=(2, 3, 2, 2)).astype(np.float32)
    mask = rng.random((2, 3, 2)) < 0.7
    mask[:, 0, 0] = True
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
    zeros = np.zeros((2, 3), np.float32)
    assert not np.any(function(zeros))
    assert np.isfinite(jax.jit(jax.grad(lambda v: jnp.sum(function(v))))(zeros)).all()


def reference_of_regions(maps, share):
    """SciPy's mean filter of powers; its `mirror` reflects at the border positions."""
    powers = np.asarray(maps, np.float64) ** heads.REGION_POWER
    means = ndimage.uniform_filter(
        powers, (0, heads.REGION_SIDE, heads.REGION_SIDE, 0), mode="mirror"
    )
    return share * means ** (1 / heads.REGION_POWER) + (1 - share) * maps


@pytest.mark.parametrize("shape", [(2, 3, 3, 4), (1, 7, 4, 2), (3, 9, 16, 1)])
@pytest.mark.parametrize("share", [0.5, 1.0])
def test_equals_the_reference(rng, shape, share):
    maps = rng.uniform(0, 3, shape).astype(np.float32)
    np.testing.assert_allclose(
        blend_regions(maps, share), reference_of_regions(maps, share), rtol=1e-5
    )


def test_an_impulse_spreads_over_its_region():
    maps = np.zeros((1, 9, 9, 1), np.float32)
    maps[0, 4, 4, 0] = 2.0
    found = np.asarray(blend_regions(maps, 1.0))[0, :, :, 0]
    expected = np.zeros((9, 9))
    expected[2:7, 2:7] = 2.0 * 25 ** (-1 / 2.5)
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_an_image_on_a_canvas_gets_what_it_gets_alone(rng):
    maps = rng.uniform(0, 3, (3, 8, 9, 2)).astype(np.float32)
    sizes = np.array([[8, 9], [3, 5], [1, 2]], np.int32)
    found = np.asarray(blend_regions(maps, 0.5, jnp.asarray(sizes)))
    for image, (rows, columns), together in zip(maps, sizes, found, strict=True):
        alone = blend_regions(image[None, :rows, :columns], 0.5)[0]
        np.testing.assert_allclose(together[:rows, :columns], alone, rtol=1e-6)


def test_no_share_and_constant_maps_change_nothing(rng):
    maps = rng.uniform(0, 3, (1, 6, 6, 2)).astype(np.float32)
    np.testing.assert_array_equal(blend_regions(maps, 0.0), maps)
    constant = np.full((1, 4, 1, 1), 0.7, np.float32)
    np.testing.assert_allclose(blend_regions(constant, 0.5), constant, rtol=1e-6)


def test_zeros_stay_zeros():
    assert not np.asarray(blend_regions(np.zeros((1, 5, 5, 1), np.float32), 0.5)).any()


def test_attention_by_hand():
    """Two channels in, two features, one position with each sign."""
    maps = jnp.asarray([[[[1.0, 2.0], [0.0, -1.0]]]])
    variables = {
        "params": {
            "conv1": {"kernel": jnp.asarray([[[[1.0, -1.0], [0.5, 1.0]]]]), "bias": jnp.ones(2)},
            "norm1": {"scale": jnp.asarray([2.0, 1.0]), "bias": jnp.asarray([0.0, -0.5])},
            "conv2": {"kernel": jnp.asarray([[[[0.5], [2.0]]]]), "bias": jnp.asarray([-1.0])},
        },
        "batch_stats": {"norm1": {"mean": jnp.asarray([1.0, 0.0]), "var": jnp.asarray([3.0, 0.0])}},
    }
    scores = Attention(features=2, epsilon=1.0).apply(variables, maps)
    # conv1: (3, 2) and (0.5, 0); norm1: (2, 1.5) and (-0.5, -0.5); ReLU; conv2: 3 and -1
    np.testing.assert_allclose(scores, [[np.log1p(np.exp([3.0, -1.0]))]], rtol=1e-6)


@pytest.mark.parametrize("dtype", [jnp.float32, jnp.bfloat16])
def test_attention_is_positive_float32(rng, random_variables, dtype):
    maps = 5 * rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    module = Attention(features=8, epsilon=1e-5, dtype=dtype)
    scores = apply(module, random_variables(module, maps), maps)
    assert scores.shape == (2, 3, 4)
    assert scores.dtype == jnp.float32
    assert np.all(np.asarray(scores) > 0)
    assert np.std(scores) > 0.1


def test_attention_uses_batch_statistics_in_training_only(rng, random_variables):
    maps = rng.normal(3.0, 2.0, size=(2, 3, 4, 6)).astype(np.float32)
    module = Attention(features=8, epsilon=1e-5, norm_momentum=0.5)
    variables = random_variables(module, maps)
    scores, changed = apply(module, variables, maps, train=True, mutable=("batch_stats",))
    scaled, _ = apply(module, variables, 2 * maps, train=True, mutable=("batch_stats",))
    first = np.einsum("bhwc,cf->bhwf", maps, variables["params"]["conv1"]["kernel"][0, 0])
    first += variables["params"]["conv1"]["bias"]
    mean = 0.5 * variables["batch_stats"]["norm1"]["mean"] + 0.5 * first.mean((0, 1, 2))
    np.testing.assert_allclose(changed["batch_stats"]["norm1"]["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled, scores, rtol=1e-3)  # the batch's own scale drops out
    assert not np.allclose(apply(module, variables, maps), scores, rtol=1e-2)


def test_norm_attention_is_the_length_of_each_vector(rng):
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(norm_attention(maps), np.linalg.norm(maps, axis=-1), rtol=1e-6)
    assert norm_attention(maps.astype(jnp.bfloat16)).dtype == jnp.float32


def test_norm_attention_has_a_finite_gradient_at_zero_vectors():
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(norm_attention(m))))(
        np.zeros((1, 2, 2, 3), np.float32)
    )
    np.testing.assert_array_equal(gradient, np.zeros((1, 2, 2, 3)))


@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("pooling", ["sum", "mean"])
def test_attend_equals_a_loop(rng, pooling, normalize):
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    scores = rng.random((2, 3, 4)).astype(np.float32)
    expected = np.zeros((2, 5))
    for image, row, column in np.ndindex(2, 3, 4):
        vector = maps[image, row, column].astype(float)
        vector = vector / np.linalg.norm(vector) if normalize else vector
        expected[image] += scores[image, row, column] * vector
    expected = expected / 12 if pooling == "mean" else expected
    np.testing.assert_allclose(attend(maps, scores, pooling, normalize), expected, rtol=1e-4)


def test_attend_does_not_depend_on_the_order_of_positions(rng):
    maps = rng.normal(size=(1, 2, 6, 5)).astype(np.float32)
    scores = rng.random((1, 2, 6)).astype(np.float32)
    order = rng.permutation(12)
    moved = maps.reshape(1, 12, 5)[:, order].reshape(maps.shape)
    moved_scores = scores.reshape(1, 12)[:, order].reshape(scores.shape)
    np.testing.assert_allclose(
        attend(moved, moved_scores, "sum", True), attend(maps, scores, "sum", True), atol=1e-5
    )


def test_autoencoder_is_two_layers_with_relu_after_the_second(rng, random_variables):
    maps = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    module = DimReduction("ae", 3)
    variables = random_variables(module, maps)
    codes, restored = apply(module, variables, maps)
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    expected = maps @ encoder["kernel"][0, 0] + encoder["bias"]
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-5)
    expected = np.maximum(expected @ decoder["kernel"][0, 0] + decoder["bias"], 0)
    np.testing.assert_allclose(restored, expected, rtol=1e-4, atol=1e-5)
    assert (codes < 0).any()  # the code is linear


def test_fc_reduction_has_no_reconstruction(rng, random_variables):
    maps = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    module = DimReduction("fc", 3)
    variables = random_variables(module, maps)
    codes, restored = apply(module, variables, maps)
    assert set(variables["params"]) == {"encoder"}
    assert codes.shape == (2, 3, 4, 3)
    assert restored is None


def test_reduction_none_returns_conv4(rng):
    maps = jnp.asarray(rng.normal(size=(2, 3, 4, 6)))
    codes, restored = DimReduction("none", 3).apply({}, maps)
    assert codes is maps
    assert restored is None


@pytest.mark.parametrize("kind", REDUCTIONS)
def test_reduction_treats_positions_independently(rng, random_variables, kind):
    maps = rng.normal(size=(1, 3, 3, 4)).astype(np.float32)
    module = DimReduction(kind, 2)
    variables = random_variables(module, maps)
    gradient = jax.jit(jax.grad(lambda m: jnp.sum(module.apply(variables, m)[0][0, 1, 1])))(maps)
    assert np.argwhere(np.asarray(gradient).any(axis=-1)).tolist() == [[0, 1, 1]]


def test_cosines_do_not_depend_on_the_length_of_class_vectors(rng, random_variables):
    descriptors = rng.normal(size=(3, 4)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    variables = random_variables(module, descriptors)
    kernel = variables["params"]["kernel"]
    cosines, scale = apply(module, variables, descriptors)
    expected = descriptors @ (kernel / np.linalg.norm(kernel, axis=0, keepdims=True))
    np.testing.assert_allclose(cosines, expected, rtol=1e-5, atol=1e-6)
    assert scale == variables["params"]["scale"]
    longer = {"params": {**variables["params"], "kernel": 7 * kernel}}
    np.testing.assert_allclose(apply(module, longer, descriptors)[0], cosines, atol=1e-6)


def test_gamma_starts_at_initial_scale(rng):
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    params = jax.jit(module.init)(jax.random.key(0), np.ones((1, 4), np.float32))["params"]
    assert params["scale"] == 45.25
    assert params["scale"].shape == ()


def test_softmax_classifier_is_affine(rng, random_variables):
    features = rng.normal(size=(3, 4)).astype(np.float32)
    module = SoftmaxClassifier(num_classes=5)
    variables = random_variables(module, features)
    dense = variables["params"]["dense"]
    expected = features @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(apply(module, variables, features), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dimensions", "classes"), [(64, 8), (16, 3000)])
def test_class_vectors_start_as_in_the_official_code(dimensions, classes):
    """Uniform with the limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio, AISTATS 2010)."""
    module = CosineClassifier(classes, 16.0)
    inputs = np.ones((1, dimensions), np.float32)
    kernel = np.asarray(jax.jit(module.init)(jax.random.key(0), inputs)["params"]["kernel"])
    limit = np.sqrt(6 / (dimensions + classes))
    assert np.abs(kernel).max() == pytest.approx(limit, rel=0.05)
    assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.1)


def test_a_zero_class_vector_has_a_finite_gradient():
    module, vectors = CosineClassifier(2, 16.0), np.eye(3, dtype=np.float32)[:2]
    kernel = np.float32([[2, 0], [0, 0], [0, 0]])
    params = {"kernel": kernel, "scale": np.float32(1)}
    cosines, _ = apply(module, {"params": params}, vectors)
    np.testing.assert_allclose(cosines, [[1, 0], [0, 0]], atol=1e-6)
    gradient = jax.jit(
        jax.grad(lambda k: jnp.sum(module.apply({"params": {**params, "kernel": k}}, vectors)[0]))
    )(kernel)
    assert np.isfinite(gradient).all()
