"""EfficientNet-Lite against a reference in NumPy, and on canvases of other images."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.errors import UserError
from delg_jax.features.pyramid_level import conv1x1_as_matmul
from delg_jax.models import delg, efficientnet, extent
from delg_jax.models.convention import CONVENTIONS
from delg_jax.models.efficientnet import DepthwiseConv, EfficientNet
from delg_jax.models.resnet import ResNet
from delg_jax.training.optimizer import OptimizerSettings

EPSILON = 1e-3


@pytest.fixture
def small(monkeypatch):
    """One block per stage, of few channels; all kernels, strides and expansions."""
    monkeypatch.setitem(efficientnet.ARCHITECTURES, "small", (0.1, 0.1))
    return "small"


def padded(maps, kernel, stride):
    """Pads as TensorFlow documents SAME."""
    pads = []
    for side in maps.shape[:2]:
        covered = stride if side % stride == 0 else side % stride
        total = max(kernel - covered, 0)
        pads.append((total // 2, total - total // 2))
    return np.pad(maps, (*pads, (0, 0)))


def convolved(maps, kernel, stride=1, depthwise=False):
    size = kernel.shape[0]
    maps = padded(maps, size, stride)
    rows, columns = ((side - size) // stride + 1 for side in maps.shape[:2])
    result = np.zeros((rows, columns, kernel.shape[-1]))
    for i in range(rows):
        for j in range(columns):
            window = maps[i * stride : i * stride + size, j * stride : j * stride + size]
            equation = "abc,abc->c" if depthwise else "abc,abcd->d"
            weights = kernel[:, :, 0] if depthwise else kernel
            result[i, j] = np.einsum(equation, window, weights)
    return result


def reference(variables, architecture, image):
    """conv4 and conv5 of an image [H, W, 3]."""
    params, stats = (variables[name] for name in ("params", "batch_stats"))

    def normed(x, names, relu=True):
        layer, moved = params, stats
        for name in names.split("/"):
            layer, moved = layer[name], moved[name]
        x = (x - moved["mean"]) / np.sqrt(moved["var"] + EPSILON) * layer["scale"] + layer["bias"]
        return np.clip(x, 0, 6) if relu else x

    x = normed(convolved(image, params["stem_conv"]["kernel"], 2), "stem_norm")
    conv4 = None
    for number, block in enumerate(efficientnet.blocks(architecture)):
        name, y = f"block{number}", x
        layers = params[name]
        if block.expansion > 1:
            y = normed(y @ layers["expand_conv"]["kernel"][0, 0], f"{name}/expand_norm")
        if block.stride == 2:
            conv4 = y  # the last one is that of stride 16
        y = convolved(y, layers["depthwise_conv"]["kernel"], block.stride, depthwise=True)
        y = normed(y, f"{name}/depthwise_norm")
        y = normed(y @ layers["project_conv"]["kernel"][0, 0], f"{name}/project_norm", relu=False)
        x = x + y if block.stride == 1 and x.shape[-1] == y.shape[-1] else y
    return conv4, normed(x @ params["head_conv"]["kernel"][0, 0], "head_norm")


@pytest.mark.parametrize("size", [(33, 46), (64, 50), (71, 37)])
def test_it_equals_the_reference(rng, random_variables, quick_jit, small, size):
    network = EfficientNet(small)
    image = rng.normal(size=(1, *size, 3)).astype(np.float32)
    variables = random_variables(network, image)
    found = quick_jit(network.apply)(variables, image)
    conv4, conv5 = reference(variables, small, image[0])
    for name, expected in (("conv4", conv4), ("conv5", conv5)):
        assert np.std(expected) > 1e-3
        assert np.mean(expected == 0) > 0.01  # the lower bound of ReLU6 is reached
        np.testing.assert_allclose(found[name][0], expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [3, 5])
def test_the_depthwise_convolution_is_that_of_xla(rng, quick_jit, kernel, stride):
    layer = DepthwiseConv(kernel, stride)
    for size in ((8, 9), (1, 2)):
        x = rng.normal(size=(2, *size, 5)).astype(np.float32)
        weights = rng.normal(size=(kernel, kernel, 1, 5)).astype(np.float32)
        variables = {"params": {"kernel": weights}}
        expected = jax.lax.conv_general_dilated(
            x,
            weights,
            (stride, stride),
            "SAME",
            dimension_numbers=("NHWC", "HWIO", "NHWC"),
            feature_group_count=5,
        )
        found = quick_jit(layer.apply)(variables, x)
        np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)


# Remainders by 32 that take every parity at every stride, the smallest image, and a whole canvas
SIZES = [(64, 96), (1, 1), (33, 67), (47, 90), (42, 53)]


@pytest.mark.parametrize("count", [3, pytest.param(len(SIZES), marks=pytest.mark.slow)])
def test_images_on_a_canvas_equal_lone_images(rng, random_variables, quick_jit, small, count):
    network, chosen = EfficientNet(small), SIZES[:count]
    images = rng.normal(size=(count, 64, 96, 3)).astype(np.float32)
    variables, apply = random_variables(network, images[:1]), quick_jit(network.apply)
    canvas = np.full_like(images, np.nan)
    for row, (height, width), image in zip(canvas, chosen, images, strict=True):
        row[:height, :width] = image[:height, :width]
    together = apply(variables, canvas, jnp.asarray(chosen))
    convention = CONVENTIONS["efficientnet"]
    sizes = np.array(chosen)
    covered = {
        "conv4": extent.conv4_sizes(sizes, convention, 16),
        "conv5": extent.conv5_sizes(sizes, convention),
    }
    for i, (height, width) in enumerate(chosen):
        alone = apply(variables, images[i : i + 1, :height, :width])
        for name, counts in covered.items():
            assert alone[name].shape[1:3] == tuple(counts[i])
            found = together[name][i, : counts[i][0], : counts[i][1]]
            np.testing.assert_allclose(found, alone[name][0], rtol=1e-4, atol=1e-5)


def test_a_canvas_of_other_sides_is_refused(random_variables, small):
    network, images = EfficientNet(small), np.zeros((1, 64, 80, 3), np.float32)
    variables = random_variables(network, images)
    with pytest.raises(ValueError, match=" 32"):
        network.apply(variables, images, jnp.asarray([[64, 80]]))


@pytest.mark.parametrize(
    ("architecture", "count", "features"),
    [
        ("efficientnet_lite0", 16, (16, 24, 40, 80, 112, 192, 320)),
        ("efficientnet_lite2", 21, (16, 24, 48, 88, 120, 208, 352)),
    ],
)
def test_published_architectures(architecture, count, features):
    blocks = list(efficientnet.blocks(architecture))
    assert len(blocks) == count
    assert tuple(dict.fromkeys(block.features for block in blocks)) == features
    network, image = EfficientNet(architecture), np.zeros((1, 64, 64, 3), np.float32)
    maps = jax.eval_shape(lambda: network.init_with_output(jax.random.key(0), image)[0])
    conv4, conv5 = efficientnet.channels(architecture)
    assert maps["conv4"].shape == (1, 4, 4, conv4)
    assert maps["conv5"].shape == (1, 2, 2, conv5)


@pytest.mark.parametrize("backbone", [EfficientNet, ResNet])
def test_batch_norm_learns_only_in_training(rng, random_variables, quick_jit, small, backbone):
    resnet = backbone is ResNet
    network = ResNet("tiny", "torchvision", 16) if resnet else EfficientNet(small)
    images = rng.normal(size=(2, 64, 64, 3)).astype(np.float32)
    variables = random_variables(network, images)
    for train in (True, False):
        step = quick_jit(partial(network.apply, train=train, mutable=["batch_stats"]))
        _, after = step(variables, images)
        moved = jax.tree.map(lambda a, b: not np.allclose(a, b), variables, {**variables, **after})
        assert set(jax.tree.leaves(moved["batch_stats"])) == {train}


def model_of(backbone, **changes):
    model = default.get_config().model
    model.update(backbone=backbone, convention="efficientnet", conv4_stride=16, num_classes=3)
    model.update(global_dim=8, attention_dim=6, local_dim=4, **changes)
    return model


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"convention": "slim"}, "convention = 'slim': .*efficientnet"),
        ({"conv4_stride": 32}, "conv4_stride = 32: .*16"),
        ({"backbone": "resnet50"}, "convention = 'efficientnet': .*slim"),
        ({"backbone": "efficientnet_b0"}, "backbone = 'efficientnet_b0': "),
    ],
)
def test_what_does_not_fit_is_refused(changes, named):
    model = model_of("efficientnet_lite0")
    model.update(changes)
    with pytest.raises(UserError, match=rf"^config\.model\.{named}"):
        delg.build(model)


@pytest.mark.slow
def test_both_heads_are_those_of_the_image_alone(rng, random_variables, quick_jit, small):
    module = delg.build(model_of(small))
    images = rng.integers(0, 256, (2, 64, 96, 3), np.uint8)
    variables = random_variables(module, images, method="classify")
    with conv1x1_as_matmul():
        together = quick_jit(module.apply)(variables, images, jnp.asarray([[64, 96], [45, 70]]))
    alone = quick_jit(module.apply)(variables, images[1:, :45, :70])
    found, expected = together.global_descriptor[1], alone.global_descriptor[0]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)
    assert together.conv4_mask[1].sum() == alone.attention[0].size == 3 * 5
    for name in ("attention", "local_descriptors"):
        found, expected = getattr(together, name)[1, :3, :5], getattr(alone, name)[0]
        np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-5)


@pytest.mark.slow
def test_it_is_trained_in_every_mode(rng, random_variables, quick_jit, small):
    """The gradient reaches every kernel; what is fixed is what `config.train` says."""
    module = delg.build(model_of(small, stop_gradient=False))
    images = rng.integers(0, 256, (2, 64, 64, 3), np.uint8)
    variables = random_variables(module, images, method="classify")

    @quick_jit
    @jax.grad
    def gradient(params):
        outputs = module.apply({**variables, "params": params}, images, method="classify")
        return sum(jnp.sum(x**2) for x in (outputs.global_logits, outputs.local_logits))

    found = traverse_util.flatten_dict(gradient(variables["params"])["efficientnet"])
    assert all(np.isfinite(leaf).all() and leaf.any() for leaf in found.values())
    train = default.get_config().train
    path = ("efficientnet", "block0", "depthwise_conv", "kernel")
    for heads, frozen, learns in (
        ("joint", False, True),
        ("global", False, True),
        ("local", False, False),
        ("joint", True, False),
    ):
        train.heads, train.freeze_backbone = heads, frozen
        assert OptimizerSettings.of(train).learns(path) == learns
