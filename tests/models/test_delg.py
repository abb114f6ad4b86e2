import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.models import heads
from delg_jax.models.delg import build

SMALL = {
    "backbone": "tiny",
    "convention": "torchvision",
    "conv4_stride": 16,
    "global_dim": 8,
    "attention_dim": 6,
    "local_dim": 4,
    "num_classes": 3,
}


def small(**changes):
    """`config.model` of a network that compiles soon."""
    model = default.get_config().model
    model.update({**SMALL, **changes})
    return model


def affine(layer, features):
    return np.asarray(features) @ layer["kernel"] + layer["bias"]


@pytest.fixture(scope="module")
def images():
    return np.random.default_rng(0).integers(0, 256, (2, 48, 64, 3), np.uint8)


@pytest.fixture(scope="module")
def variables(images, random_variables):
    """Of the default network."""
    return random_variables(build(small()), images, method="classify")


@pytest.fixture(scope="module")
def outputs(images, variables, quick_jit):
    """What `classify` of the default network gives for the images."""
    return quick_jit(lambda v: build(small()).apply(v, images, method="classify"))(variables)


@pytest.fixture
def classify(outputs, random_variables, quick_jit):
    """A function that builds the heads of a network for the default's conv4 and conv5.

    It returns their variables and what `classify_maps` gives.
    """
    maps = outputs.conv4, outputs.conv5

    def run(**changes):
        module = build(small(**changes))
        variables = random_variables(module, *maps, method="classify_maps")
        return variables, quick_jit(lambda v: module.apply(v, *maps, method="classify_maps"))(
            variables
        )

    return run


def test_shapes_and_types_of_the_default(variables, outputs):
    assert outputs.conv4.shape == (2, 3, 4, 64)
    assert outputs.conv5.shape == (2, 2, 2, 128)
    assert outputs.global_feature.shape == outputs.global_descriptor.shape == (2, 8)
    assert outputs.attention.shape == (2, 3, 4)
    assert outputs.local_descriptors.shape == (2, 3, 4, 4)
    assert outputs.reconstruction.shape == outputs.conv4.shape
    assert outputs.conv4_mask is None
    assert outputs.global_logits.shape == outputs.local_logits.shape == (2, 3)
    np.testing.assert_allclose(np.linalg.norm(outputs.global_descriptor, axis=1), 1, rtol=1e-5)
    classes = variables["params"]["global_classifier"]["kernel"]
    expected = outputs.global_descriptor @ (classes / np.linalg.norm(classes, axis=0))
    np.testing.assert_allclose(outputs.global_logits, expected, atol=1e-5)
    assert outputs.scale == variables["params"]["global_classifier"]["scale"]


LOCAL_OUTPUTS = ("attention", "local_descriptors", "reconstruction", "local_logits")
GLOBAL_OUTPUTS = ("global_feature", "global_logits", "scale")


def assert_not_computed(outputs, names):
    assert {name for name in names if getattr(outputs, name) is not None} == set()


@pytest.mark.parametrize(
    ("which", "parts", "absent"),
    [
        ("global", ("whiten", "global_classifier"), LOCAL_OUTPUTS),
        ("local", ("attend", "reduce", "local_classifier"), GLOBAL_OUTPUTS),
    ],
)
def test_only_the_heads_asked_for_are_computed(
    images, variables, outputs, quick_jit, which, parts, absent
):
    """Parameters of the other head are NaN, and change nothing."""
    module = build(small())
    spoilt = {
        name: tree if name in ("resnet", *parts) else jax.tree.map(lambda x: x * np.nan, tree)
        for name, tree in variables["params"].items()
    }
    run = quick_jit(lambda v: module.apply(v, images, which=which, method="classify"))
    found = run({**variables, "params": spoilt})
    assert_not_computed(found, absent)
    for name in {*LOCAL_OUTPUTS, *GLOBAL_OUTPUTS} - set(absent):
        np.testing.assert_allclose(getattr(found, name), getattr(outputs, name), rtol=1e-5)


def test_heads_of_the_maps_are_those_of_the_images(variables, outputs, quick_jit):
    run = quick_jit(
        lambda v: build(small()).apply(v, outputs.conv4, outputs.conv5, method="classify_maps")
    )
    found = run(
        {"params": {n: v for n, v in variables["params"].items() if n != "resnet"}}
        | {"batch_stats": {"attend": variables["batch_stats"]["attend"]}}
    )
    for name in (*LOCAL_OUTPUTS, *GLOBAL_OUTPUTS):
        np.testing.assert_allclose(
            getattr(found, name), getattr(outputs, name), rtol=1e-5, atol=1e-6
        )


@pytest.mark.parametrize("kind", heads.POOLINGS)
def test_without_whitening_the_global_feature_is_the_pooled_conv5(classify, kind):
    variables, outputs = classify(pooling=kind, whitening=False, gem_power=2.0)
    expected = heads.pool(outputs.conv5, kind, 2.0)
    np.testing.assert_allclose(outputs.global_feature, expected, rtol=1e-5)
    assert "whiten" not in variables["params"]


def test_whitening_is_one_layer_after_pooling(variables, outputs):
    pooled = heads.pool(outputs.conv5, "gem", 3.0)
    expected = affine(variables["params"]["whiten"], pooled)
    np.testing.assert_allclose(outputs.global_feature, expected, rtol=1e-4, atol=1e-5)


def test_softmax_classifies_the_feature_before_normalisation(classify):
    variables, outputs = classify(global_loss="softmax")
    dense = variables["params"]["global_classifier"]["dense"]
    expected = affine(dense, outputs.global_feature)
    assert outputs.scale is None
    np.testing.assert_allclose(outputs.global_logits, expected, rtol=1e-4, atol=1e-4)


def test_without_local_head_there_are_no_local_outputs(classify):
    variables, outputs = classify(local_head=False)
    assert_not_computed(outputs, LOCAL_OUTPUTS)
    assert set(variables["params"]) == {"whiten", "global_classifier"}


def test_norm_attention_and_conv4_need_no_parameters(classify):
    variables, outputs = classify(attention="norm", dim_reduction="none")
    lengths = np.linalg.norm(outputs.conv4, axis=-1)
    np.testing.assert_allclose(outputs.attention, lengths, rtol=1e-5)
    np.testing.assert_array_equal(outputs.local_descriptors, outputs.conv4)
    assert outputs.reconstruction is None
    assert {"attend", "reduce"}.isdisjoint(variables["params"])
    unit = outputs.conv4 / np.maximum(lengths, 1e-6)[..., None]
    pooled = (unit * lengths[..., None]).mean((1, 2))
    expected = affine(variables["params"]["local_classifier"]["dense"], pooled)
    np.testing.assert_allclose(outputs.local_logits, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(("reduction", "pooled"), [("fc", "descriptors"), ("ae", "restored")])
def test_the_local_classifier_uses_the_output_of_the_reduction(classify, reduction, pooled):
    variables, outputs = classify(
        dim_reduction=reduction, attention_pooling="sum", attention_normalize=False
    )
    maps = {"descriptors": outputs.local_descriptors, "restored": outputs.reconstruction}[pooled]
    weighted = np.einsum("bhw,bhwc->bc", outputs.attention, maps)
    expected = affine(variables["params"]["local_classifier"]["dense"], weighted)
    np.testing.assert_allclose(outputs.local_logits, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(
    ("convention", "conv4_stride"),
    [
        ("slim", 32),
        pytest.param("keras", 32, marks=pytest.mark.slow),
        ("keras", 16),
        pytest.param("torchvision", 32, marks=pytest.mark.slow),
        ("torchvision", 16),
    ],
)
def test_an_image_on_a_canvas_has_its_own_features(
    rng, random_variables, quick_jit, convention, conv4_stride
):
    """Beyond the images lies noise.

    The sizes leave every remainder by 4, and those of test_resnet in each axis.
    """
    canvas = rng.integers(0, 256, (2, 64, 68, 3), np.uint8)
    sizes = [(64, 41), (58, 67)]
    module = build(small(convention=convention, conv4_stride=conv4_stride))
    variables = random_variables(module, canvas, method="classify")
    apply = quick_jit(module.apply)
    together = jax.tree.map(np.asarray, apply(variables, canvas, np.array(sizes, np.int32)))
    for i, (height, width) in enumerate(sizes):
        alone = jax.tree.map(np.asarray, apply(variables, canvas[i : i + 1, :height, :width]))
        rows, columns = alone.attention.shape[1:]
        expected = np.zeros(together.attention.shape[1:], bool)
        expected[:rows, :columns] = True
        np.testing.assert_array_equal(together.conv4_mask[i], expected)
        for name in ("conv4", "conv5", "attention", "local_descriptors", "reconstruction"):
            found, exact = getattr(together, name)[i], getattr(alone, name)[0]
            found = found[: exact.shape[0], : exact.shape[1]]
            np.testing.assert_allclose(found, exact, rtol=1e-3, atol=1e-4)
        np.testing.assert_allclose(
            together.global_descriptor[i], alone.global_descriptor[0], atol=1e-5
        )


def test_bfloat16_is_close_with_float32_parameters_and_results(
    images, variables, outputs, quick_jit
):
    rough = build(small(), dtype=jnp.bfloat16)
    types = jax.eval_shape(lambda: rough.init(jax.random.key(0), images, method="classify"))
    assert {leaf.dtype for leaf in jax.tree.leaves(types)} == {jnp.dtype(jnp.float32)}
    found = quick_jit(lambda v: rough.apply(v, images, method="classify"))(variables)
    assert found.conv4.dtype == found.local_descriptors.dtype == jnp.bfloat16
    for name in ("global_feature", "attention", "global_logits", "local_logits"):
        assert getattr(found, name).dtype == jnp.float32
    similarity = np.sum(outputs.global_descriptor * found.global_descriptor, axis=1)
    assert (similarity > 0.99).all()
    assert (similarity < 1.0 - 1e-7).all()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("backbone", "vgg16"),
        ("convention", "caffe"),
        ("conv4_stride", 8),
        ("pooling", "mac"),
        ("global_loss", "cosface"),
        ("attention", "gaussian"),
        ("attention_pooling", "max"),
        ("dim_reduction", "pca"),
        ("gem_power", 0.0),
        ("gem_power", float("nan")),
        ("global_dim", 0),
        ("attention_dim", -1),
        ("local_dim", 0),
        ("num_classes", -1),
    ],
)
def test_a_wrong_value_is_refused(field, value):
    with pytest.raises(UserError) as error:
        build(small(**{field: value}))
    assert error.value.subject == f"config.model.{field}"
    assert str(error.value.value) == str(value)


def test_the_training_data_determine_the_number_of_classes():
    assert build(small(num_classes=0)).num_classes == 1
    assert build(small(num_classes=0), num_classes=7).num_classes == 7
