import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models import extent, resnet
from delg_jax.models.convention import CONVENTIONS, RESNET_CONVENTIONS
from delg_jax.models.resnet import STAGES, ResNet

BACKBONES = [("slim", 32), ("keras", 32), ("keras", 16), ("torchvision", 32), ("torchvision", 16)]


@pytest.fixture
def bottleneck(monkeypatch):
    """A narrow network of bottlenecks, one stage of which has a unit without projection."""
    monkeypatch.setitem(resnet.ARCHITECTURES, "bottleneck", ((2, 1, 1, 1), True, 2))
    return "bottleneck"


def shapes(network, rows, columns):
    image = jax.ShapeDtypeStruct((1, rows, columns, 3), jnp.float32)
    variables = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)
    maps = jax.eval_shape(network.apply, variables, image)
    return {name: maps[name].shape[1:] for name in maps}


@pytest.mark.parametrize(
    ("convention", "conv4_stride", "strides"),
    [
        ("slim", 32, (8, 16, 32, 32)),
        ("keras", 32, (4, 8, 32, 32)),
        ("keras", 16, (4, 8, 16, 32)),
        ("torchvision", 32, (4, 8, 32, 32)),
        ("torchvision", 16, (4, 8, 16, 32)),
    ],
)
@pytest.mark.parametrize("architecture", ["tiny", pytest.param("resnet50", marks=pytest.mark.slow)])
def test_strides_and_channels(architecture, convention, conv4_stride, strides):
    found = shapes(ResNet(architecture, convention, conv4_stride), 128, 192)
    lost = 1 if convention == "keras" else 0  # VALID pooling drops a row that others pad
    width = {"tiny": 16, "resnet50": 256}[architecture]
    assert list(found) == list(STAGES)
    for stage, stride in enumerate(strides):
        assert found[STAGES[stage]][2] == width * 2**stage
        rows, columns = found[STAGES[stage]][:2]
        assert rows == -(-(32 - lost) // (stride // 4))
        assert columns == -(-(48 - lost) // (stride // 4))
    assert resnet.channels(architecture) == (width * 4, width * 8)


@pytest.mark.parametrize(
    ("architecture", "projected"),
    [
        ("tiny", [False, True, True, True]),
        ("resnet50", [True] * 4),
        ("resnet18", [False] + 3 * [1]),
    ],
)
def test_a_stage_projects_its_shortcut_only_where_channels_change(architecture, projected):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    network = ResNet(architecture, "torchvision", 16)
    params = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)["params"]
    for stage, expected in zip(STAGES, projected, strict=True):
        assert ("shortcut_conv" in params[f"{stage}_unit1"]) == expected
        assert "shortcut_conv" not in params.get(f"{stage}_unit2", {})


@pytest.mark.parametrize("convention", sorted(RESNET_CONVENTIONS))
def test_only_keras_has_biases_beside_those_of_batch_norm(convention):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), jnp.float32)
    network = ResNet("tiny", convention, 32)
    params = jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)["params"]
    assert ("bias" in params["stem_conv"]) == convention.startswith("keras")
    assert ("bias" in params["conv3_unit1"]["conv2"]) == convention.startswith("keras")


# Remainders by 4 in each axis: (0, 3), (3, 2), (2, 1), (1, 0); the first fills its canvas's height.
SIZES = [(64, 67), (39, 94), (58, 41), (45, 60)]


@pytest.mark.parametrize(
    "convention",
    [
        pytest.param(c, marks=[] if c in ("keras", "torchvision") else pytest.mark.slow)
        for c in sorted(RESNET_CONVENTIONS)
    ],
)
def test_bottlenecks_on_a_canvas_equal_lone_images(
    rng, random_variables, quick_jit, bottleneck, convention
):
    """For basic units and all strides see `test_delg.py`."""
    network = ResNet(bottleneck, convention, 32)
    images = rng.normal(size=(4, 64, 96, 3)).astype(np.float32)
    variables, apply = random_variables(network, images[:1]), quick_jit(network.apply)
    canvas = np.full_like(images, np.nan)
    for row, (height, width), image in zip(canvas, SIZES, images, strict=True):
        row[:height, :width] = image[:height, :width]
    together = apply(variables, canvas, jnp.asarray(SIZES))
    conv4 = extent.conv4_sizes(np.array(SIZES), CONVENTIONS[convention], 32)
    conv5 = extent.conv5_sizes(np.array(SIZES), CONVENTIONS[convention])
    for i, (height, width) in enumerate(SIZES):
        alone = apply(variables, images[i : i + 1, :height, :width])
        for stage, (rows, columns) in {"conv4": conv4[i], "conv5": conv5[i]}.items():
            found = together[stage][i, :rows, :columns]
            np.testing.assert_allclose(found, alone[stage][0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("architecture", "convention", "conv4_stride", "named"),
    [
        ("resnet34", "slim", 32, "backbone = 'resnet34': .*tiny, resn"),
        ("tiny", "caffe", 32, "convention = 'caffe'"),
        ("tiny", "slim", 16, "conv4_stride = 16: .*32 .*slim"),
        ("tiny", "keras", 8, "conv4_stride = 8"),
    ],
)
def test_an_unknown_backbone_is_refused(architecture, convention, conv4_stride, named):
    with pytest.raises(UserError, match=rf"^config\.model\.{named}"):
        resnet.check(architecture, convention, conv4_stride)


@pytest.mark.parametrize(("convention", "conv4_stride"), BACKBONES)
def test_a_known_backbone_is_accepted(convention, conv4_stride):
    resnet.check("resnet101", convention, conv4_stride)
