import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.models.heads import (
    KINDS,
    Attention,
    CosineClassifier,
    DimReduction,
    SoftmaxClassifier,
    attend,
    norm_attention,
)


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
    scores = module.apply(random_variables(module, maps), maps)
    assert scores.shape == (2, 3, 4)
    assert scores.dtype == jnp.float32
    assert (scores > 0).all()
    assert np.std(scores) > 0.1


def test_attention_uses_batch_statistics_in_training_only(rng, random_variables):
    maps = rng.normal(3.0, 2.0, size=(2, 3, 4, 6)).astype(np.float32)
    module = Attention(features=8, epsilon=1e-5, norm_momentum=0.5)
    variables = random_variables(module, maps)
    scores, changed = module.apply(variables, maps, train=True, mutable=["batch_stats"])
    scaled, _ = module.apply(variables, 2 * maps, train=True, mutable=["batch_stats"])
    first = np.einsum("bhwc,cf->bhwf", maps, variables["params"]["conv1"]["kernel"][0, 0])
    first += variables["params"]["conv1"]["bias"]
    mean = 0.5 * variables["batch_stats"]["norm1"]["mean"] + 0.5 * first.mean((0, 1, 2))
    np.testing.assert_allclose(changed["batch_stats"]["norm1"]["mean"], mean, rtol=1e-4, atol=1e-5)
    np.testing.assert_allclose(scaled, scores, rtol=1e-3)  # the batch's own scale drops out
    assert not np.allclose(module.apply(variables, maps), scores, rtol=1e-2)


def test_norm_attention_is_the_length_of_each_vector(rng):
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    np.testing.assert_allclose(norm_attention(maps), np.linalg.norm(maps, axis=-1), rtol=1e-6)
    assert norm_attention(maps.astype(jnp.bfloat16)).dtype == jnp.float32


def test_norm_attention_has_a_finite_gradient_at_zero_vectors():
    gradient = jax.grad(lambda m: jnp.sum(norm_attention(m)))(jnp.zeros((1, 2, 2, 3)))
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
    codes, restored = module.apply(variables, maps)
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
    codes, restored = module.apply(variables, maps)
    assert set(variables["params"]) == {"encoder"}
    assert codes.shape == (2, 3, 4, 3)
    assert restored is None


def test_reduction_none_returns_conv4(rng):
    maps = jnp.asarray(rng.normal(size=(2, 3, 4, 6)))
    codes, restored = DimReduction("none", 3).apply({}, maps)
    assert codes is maps
    assert restored is None


@pytest.mark.parametrize("kind", KINDS)
def test_reduction_treats_positions_independently(rng, random_variables, kind):
    maps = rng.normal(size=(1, 3, 3, 4)).astype(np.float32)
    module = DimReduction(kind, 2)
    variables = random_variables(module, maps)
    gradient = jax.grad(lambda m: jnp.sum(module.apply(variables, m)[0][0, 1, 1]))(maps)
    assert np.argwhere(gradient.any(axis=-1)).tolist() == [[0, 1, 1]]


def test_cosines_do_not_depend_on_the_length_of_class_vectors(rng, random_variables):
    descriptors = rng.normal(size=(3, 4)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=1, keepdims=True)
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    variables = random_variables(module, descriptors)
    kernel = variables["params"]["kernel"]
    cosines, scale = module.apply(variables, descriptors)
    expected = descriptors @ (kernel / np.linalg.norm(kernel, axis=0, keepdims=True))
    np.testing.assert_allclose(cosines, expected, rtol=1e-5, atol=1e-6)
    assert scale == variables["params"]["scale"]
    longer = {"params": {**variables["params"], "kernel": 7 * kernel}}
    np.testing.assert_allclose(module.apply(longer, descriptors)[0], cosines, atol=1e-6)


def test_gamma_starts_at_initial_scale(rng):
    module = CosineClassifier(num_classes=5, initial_scale=45.25)
    params = module.init(jax.random.key(0), np.ones((1, 4), np.float32))["params"]
    assert params["scale"] == 45.25
    assert params["scale"].shape == ()


def test_softmax_classifier_is_affine(rng, random_variables):
    features = rng.normal(size=(3, 4)).astype(np.float32)
    module = SoftmaxClassifier(num_classes=5)
    variables = random_variables(module, features)
    dense = variables["params"]["dense"]
    expected = features @ dense["kernel"] + dense["bias"]
    np.testing.assert_allclose(module.apply(variables, features), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(("dimensions", "classes"), [(64, 8), (16, 3000)])
def test_class_vectors_start_as_in_the_official_code(dimensions, classes):
    """Uniform with the limit sqrt(6 / (inputs + outputs)) (Glorot and Bengio, AISTATS 2010)."""
    module = CosineClassifier(classes, 16.0)
    kernel = module.init(jax.random.key(0), jnp.ones((1, dimensions)))["params"]["kernel"]
    limit = np.sqrt(6 / (dimensions + classes))
    assert np.abs(kernel).max() == pytest.approx(limit, rel=0.05)
    assert np.std(kernel) == pytest.approx(limit / np.sqrt(3), rel=0.1)


def test_a_zero_class_vector_has_a_finite_gradient():
    module, vectors = CosineClassifier(2, 16.0), jnp.eye(3)[:2]
    kernel = jnp.zeros((3, 2)).at[0, 0].set(2.0)
    params = {"kernel": kernel, "scale": jnp.ones(())}
    cosines, _ = module.apply({"params": params}, vectors)
    np.testing.assert_allclose(cosines, [[1, 0], [0, 0]], atol=1e-6)
    gradient = jax.grad(
        lambda k: jnp.sum(module.apply({"params": {**params, "kernel": k}}, vectors)[0])
    )(kernel)
    assert np.isfinite(gradient).all()
