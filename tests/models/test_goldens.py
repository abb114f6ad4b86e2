"""Our networks against the outputs of the official code, with weights made from their names."""

import json
import zlib

import numpy as np
import pytest

from configs import default
from delg_jax.models import delg, heads, weights
from delg_jax.models.convention import CONVENTIONS, preprocess
from delg_jax.models.resnet import STAGES, ResNet

pytestmark = pytest.mark.real


def seeded(listing):
    """The variables in a listing [(name, shape)], drawn as for the golden outputs."""
    return {name: draw(name, shape) for name, shape in json.loads(listing.read_text())}


def draw(name, shape):
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    kind = name.split("/")[-1]
    if kind in ("kernel", "weights"):
        values = rng.normal(0, np.sqrt(2 / np.prod(shape[:-1])), shape)
    elif kind == "gamma":
        values = 0.6 + 0.05 * rng.normal(size=shape)
    elif kind == "moving_variance":
        values = 1 + 0.2 * rng.random(shape)
    else:
        values = 0.05 * rng.normal(size=shape)
    return values.astype(np.float32)


def assert_close(found, expected):
    """Relative L2 distance below 1e-5."""
    assert found.shape == expected.shape
    distance = np.linalg.norm(np.asarray(found, float) - expected)
    assert distance < 1e-5 * np.linalg.norm(expected)


@pytest.fixture(scope="module")
def keras(shared, quick_jit):
    """The whole model of the TF2 code: what ours computes, and the golden outputs."""
    model = default.get_config().model
    model.update(convention="keras", conv4_stride=32, pretrained_source="keras")
    arrays = seeded(shared / "goldens" / "delg_keras_variables.json")
    variables = weights.convert("keras", arrays, delg.build(model), classifiers=False)
    golden = np.load(shared / "goldens" / "delg_keras_s32.npz")
    return quick_jit(delg.build(model).apply)(variables, golden["image"][None]), dict(golden)


def test_global_descriptor_of_the_keras_model(keras):
    outputs, golden = keras
    assert_close(outputs.conv5[0].mean(-1), golden["conv5_mean"])
    assert_close(outputs.global_feature[0], golden["global_descriptor"])


def test_local_head_of_the_keras_model(keras):
    outputs, golden = keras
    assert_close(outputs.conv4[0].mean(-1), golden["conv4_mean"])
    assert_close(outputs.attention[0], golden["attention"])
    assert_close(outputs.local_descriptors[0], golden["local"])
    assert_close(outputs.reconstruction[0].mean(-1), golden["recon_mean"])


def test_the_keras_model_without_strides_after_conv4(shared, quick_jit, keras):
    """Every second of its positions is one of the strided model; conv5 sees the same."""
    _, golden = keras
    model = default.get_config().model
    model.update(convention="keras", conv4_stride=16, pretrained_source="keras")
    arrays = seeded(shared / "goldens" / "delg_keras_variables.json")
    variables = weights.convert("keras", arrays, delg.build(model), classifiers=False)
    outputs = quick_jit(delg.build(model).apply)(variables, golden["image"][None])
    assert outputs.attention.shape == (1, 14, 16)
    assert_close(outputs.conv4[0, ::2, ::2].mean(-1), golden["conv4_mean"])
    assert_close(outputs.attention[0, ::2, ::2], golden["attention"])
    assert_close(outputs.local_descriptors[0, ::2, ::2], golden["local"])
    assert_close(outputs.reconstruction[0, ::2, ::2].mean(-1), golden["recon_mean"])
    assert_close(outputs.conv5[0].mean(-1), golden["conv5_mean"])
    assert_close(outputs.global_feature[0], golden["global_descriptor"])


def test_the_input_of_the_attention_classifier_is_that_of_keras(keras):
    outputs, golden = keras
    pooled = heads.attend(outputs.reconstruction, outputs.attention, pooling="mean", normalize=True)
    assert_close(pooled[0], golden["attention_prelogits"])


@pytest.mark.parametrize("depth", [50, pytest.param(101, marks=pytest.mark.slow)])
def test_stages_of_the_slim_backbone(shared, quick_jit, depth):
    model = default.get_config().model
    model.update(backbone=f"resnet{depth}", convention="slim", local_head=False)
    arrays = seeded(shared / "goldens" / f"slim_resnet_v1_{depth}_variables.json")
    variables = weights.convert("slim", arrays, delg.build(model), classifiers=False)
    backbone = {name: tree["resnet"] for name, tree in variables.items()}
    with np.load(shared / "goldens" / f"slim_r{depth}.npz") as golden:
        images = preprocess(golden["image"][None], CONVENTIONS["slim"])
        stages = quick_jit(ResNet(f"resnet{depth}", "slim", 32).apply)(backbone, images)
        for number, stage in enumerate(STAGES, start=1):
            assert_close(stages[stage][0].mean(-1), golden[f"block{number}_mean"])
        assert_close(stages["conv4"][0].mean((0, 1)), golden["block3_gap"])
        assert_close(stages["conv5"][0].mean((0, 1)), golden["block4_gap"])
