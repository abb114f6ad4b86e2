"""The tables against the variables of our networks, and against names that sources publish."""

import functools

import jax
import numpy as np
import pytest
from flax import traverse_util

from delg_jax.models import efficientnet, vit
from delg_jax.models.resnet import ARCHITECTURES, ResNet
from delg_jax.models.weights.names import NAMINGS


@functools.cache  # tracing a network takes a second
def parameters(network):
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    return jax.eval_shape(lambda x: network.init(jax.random.key(0), x), image)["params"]


@pytest.mark.parametrize("architecture", sorted(ARCHITECTURES))
@pytest.mark.parametrize("source", sorted(s for s in NAMINGS if NAMINGS[s][0].family == "resnet"))
def test_every_module_of_a_backbone_has_a_name_of_its_own(source, architecture):
    network = ResNet(architecture, "keras" if source == "keras" else "torchvision", 32)
    params = parameters(network)
    modules = {"/".join(("resnet", *path[:-1])) for path in traverse_util.flatten_dict(params)}
    names = NAMINGS[source][0].modules(architecture)
    assert modules <= set(names)
    # Two modules may share a prefix only as Slim's convolutions and their BatchNorm do.
    assert len({names[module] for module in modules}) == len(modules)


@pytest.mark.parametrize("architecture", sorted(efficientnet.ARCHITECTURES))
def test_every_module_of_an_efficientnet_has_a_name_of_its_own(architecture):
    network = efficientnet.EfficientNet(architecture)
    params = parameters(network)
    modules = {"/".join(("efficientnet", *p[:-1])) for p in traverse_util.flatten_dict(params)}
    names = NAMINGS["efficientnet"][0].modules(architecture)
    assert modules == set(names)
    assert len(set(names.values())) == len(names)
    assert NAMINGS["torchvision"][0].modules(architecture) == {}


@pytest.mark.parametrize("architecture", ["dinov2_s14", "dinov2_g14_reg", "siglip2_b16_224"])
def test_every_variable_of_a_vision_transformer_has_a_name_of_its_own(architecture):
    network = vit.VisionTransformer(architecture)
    params = parameters(network)
    paths = ["/".join(("vit", *path)) for path in traverse_util.flatten_dict(params)]
    for naming in NAMINGS[vit.ARCHITECTURES[architecture].convention]:
        modules = naming.modules(architecture)
        assert None not in {naming.name(path, modules) for path in paths}
        assert len({naming.name(path, modules) for path in paths}) == len(paths)
        assert len(naming.kernels(architecture)) == sum(p.endswith("/kernel") for p in paths)
    assert NAMINGS["torchvision"][0].modules(architecture) == {}
    assert NAMINGS["efficientnet"][0].modules(architecture) == {}
    assert NAMINGS["dinov2"][0].modules("siglip2_b16_224") == {}


@pytest.mark.parametrize(
    ("source", "architecture", "ours", "theirs"),
    [
        ("torchvision", "resnet50", "stem_conv", "conv1"),
        ("torchvision", "resnet50", "conv3_unit4/norm3", "layer2.3.bn3"),
        ("torchvision", "resnet18", "conv5_unit1/shortcut_norm", "layer4.0.downsample.1"),
        ("slim", "resnet50", "stem_norm", "resnet_v1_50/conv1/BatchNorm"),
        (
            "slim",
            "resnet101",
            "conv4_unit23/conv2",
            "resnet_v1_101/block3/unit_23/bottleneck_v1/conv2",
        ),
        (
            "slim",
            "resnet50",
            "conv2_unit1/shortcut_norm",
            "resnet_v1_50/block1/unit_1/bottleneck_v1/shortcut/BatchNorm",
        ),
        ("keras", "resnet50", "conv4_unit6/conv3", "res4f_branch2c"),
        ("keras", "resnet50", "conv2_unit1/shortcut_norm", "bn2a_branch1"),
    ],
)
def test_published_names(source, architecture, ours, theirs):
    assert NAMINGS[source][0].modules(architecture)[f"resnet/{ours}"] == theirs
