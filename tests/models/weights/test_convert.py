import re

import numpy as np
import pytest
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import delg
from delg_jax.models.weights.names import NAMINGS
from tests.models.weights.foreign import converted, foreign, model_of


@pytest.mark.parametrize(
    ("source", "backbone", "convention"),
    [
        ("torchvision", "tiny", "torchvision"),
        ("torchvision", "resnet18", "torchvision"),
        ("slim", "tiny", "slim"),
        pytest.param("slim", "resnet50", "slim", marks=pytest.mark.slow),
        ("keras", "tiny", "keras"),
        pytest.param("keras", "resnet50", "keras", marks=pytest.mark.slow),
    ],
)
def test_round_trip(rng, source, backbone, convention):
    model = model_of(backbone, convention)
    ours, theirs = foreign(NAMINGS[source][0], model, rng)
    found = traverse_util.flatten_dict(converted(source, theirs, model))
    assert set(found) == set(ours)
    for path, array in found.items():
        assert array.dtype == np.float32
        np.testing.assert_array_equal(array, ours[path])


def test_torchvision_has_the_names_and_axes_of_a_state_dict(rng):
    _, theirs = foreign(NAMINGS["torchvision"][0], model_of("resnet18"), rng)
    assert len(theirs) == 20 * 5  # convolutions, each with the four arrays of its BatchNorm
    assert theirs["conv1.weight"].shape == (64, 3, 7, 7)
    assert theirs["layer3.0.downsample.0.weight"].shape == (256, 128, 1, 1)
    assert theirs["layer3.0.bn2.running_var"].shape == (256,)
    assert "layer1.0.downsample.0.weight" not in theirs


@pytest.mark.parametrize(
    ("source", "convention", "names"),
    [
        ("torchvision", "torchvision", ["fc.weight", "fc.bias", "bn1.num_batches_tracked"]),
        ("slim", "slim", ["resnet_v1_tiny/logits/weights", "resnet_v1_tiny/logits/biases"]),
        ("slim", "slim", ["global_step", "resnet_v1_tiny/mean_rgb", "conv1/weights/Momentum"]),
        ("keras", "keras", ["desc_fc/kernel", "att_fc/bias", "cosine_weights", "SGD/iter"]),
    ],
)
def test_classifiers_and_counters_are_ignored(rng, source, convention, names):
    model = model_of("tiny", convention)
    model.num_classes = 0
    _, theirs = foreign(NAMINGS[source][0], model, rng)
    expected = traverse_util.flatten_dict(converted(source, theirs, model))
    extra = {name: np.ones(3, np.float32) for name in names}
    found = traverse_util.flatten_dict(converted(source, {**theirs, **extra}, model))
    assert set(found) == set(expected)


def test_missing_surplus_and_misshapen_arrays_are_listed(rng):
    model = model_of("tiny")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    del theirs["conv1.weight"], theirs["bn1.running_mean"]
    theirs["layer9.0.conv1.weight"] = np.ones((1, 1))
    theirs["bn1.weight"] = np.ones(5)
    with pytest.raises(UserError) as error:
        converted("torchvision", theirs, model)
    message = str(error.value)
    found = re.findall(r"\d+ (?:missing|surplus|misshapen) \([^;]*\)", message)
    assert len(found) == 3
    assert "2 missing" in found[0]
    assert "conv1.weight" in found[0]
    assert "bn1.running_mean" in found[0]
    assert found[1] == "1 surplus (layer9.0.conv1.weight)"
    assert found[2] == "1 misshapen (bn1.weight (5,) instead of (16,))"


def test_a_long_list_is_not_shortened(rng):
    model = model_of("tiny")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    names = {f"layer9.{n}.weight": np.ones(1) for n in range(20)}
    with pytest.raises(UserError, match="20 surplus") as error:
        converted("torchvision", {**theirs, **names}, model)
    assert all(name in str(error.value) for name in names)


def test_another_source_is_refused():
    with pytest.raises(UserError, match="pretrained_source = 'caffe'.*torchvision"):
        converted("caffe", {}, model_of("tiny"))


@pytest.mark.parametrize("source", ["torchvision", "slim", "keras"])
def test_folded_batch_norm_gives_the_same_features(rng, quick_jit, source):
    """Folded by hand: with slope a = scale / sqrt(var + eps), y = a x + (bias - mean a)."""
    model = model_of("tiny", source, conv4_stride=32, local_head=False, whitening=False)
    naming, epsilon = NAMINGS[source][0], 1e-3 if source == "keras" else 1e-5
    _, theirs = foreign(NAMINGS[source][0], model, rng)
    endings = [naming.separator + naming.norm[leaf] for leaf in ("scale", "bias", "mean", "var")]
    folded = dict(theirs)
    for name in [name for name in theirs if name.endswith(endings[2])]:
        owner = name.removesuffix(endings[2])
        scale, bias, mean, var = (theirs[owner + ending] for ending in endings)
        slope = scale / np.sqrt(var + epsilon)
        folded[owner + endings[0]], folded[owner + endings[1]] = slope, bias - mean * slope
        del folded[owner + endings[2]], folded[owner + endings[3]]
    image = rng.integers(0, 256, (1, 64, 64, 3), np.uint8)
    apply = quick_jit(lambda v: delg.build(model).apply(v, image).global_feature)
    whole, short = (apply(converted(source, arrays, model)) for arrays in (theirs, folded))
    assert np.linalg.norm(whole - short) < 1e-5 * np.linalg.norm(whole)


def test_half_folded_batch_norm_is_refused(rng):
    model = model_of("tiny")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    del theirs["bn1.running_mean"]
    with pytest.raises(UserError, match="1 missing .bn1.running_mean"):
        converted("torchvision", theirs, model)


def test_a_source_may_hold_the_backbone_alone(rng):
    model = model_of("tiny", "keras")
    _, theirs = foreign(NAMINGS["keras"][0], model, rng)
    heads = ("embedding_layer", "attention/", "autoencoder/", "att_fc/", "cosine_weights", "scale")
    backbone = {name: a for name, a in theirs.items() if not name.startswith(heads)}
    assert set(converted("keras", theirs, model)["params"]) == {
        *("resnet", "whiten", "attend", "reduce", "global_classifier", "local_classifier")
    }
    assert set(converted("keras", backbone, model)["params"]) == {"resnet"}
    backbone["autoencoder/autoenc_conv1/kernel"] = theirs["autoencoder/autoenc_conv1/kernel"]
    with pytest.raises(UserError, match="3 missing .*autoenc_conv2/kernel"):
        converted("keras", backbone, model)


def test_parts_that_the_model_lacks_are_ignored(rng):
    _, theirs = foreign(NAMINGS["keras"][0], model_of("tiny", "keras"), rng)
    without = model_of("tiny", "keras", local_head=False, whitening=False, num_classes=0)
    assert set(converted("keras", theirs, without)["params"]) == {"resnet"}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_weights_that_are_not_finite_are_named(rng, value):
    model = model_of("tiny", "torchvision")
    _, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    theirs["bn1.running_var"][0] = value
    names = r"config\.model\.pretrained = 'bn1\.running_var': .*finite.* resnet/"
    with pytest.raises(UserError, match=names):
        converted("torchvision", theirs, model)
