"""Sources with heads, prefixes or several namings; the backbones' tables are in test_names."""

import importlib

import numpy as np
import pytest
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import delg, vit, weights
from delg_jax.models.vit import Architecture
from delg_jax.models.weights import names
from delg_jax.models.weights.identify import Identity
from delg_jax.models.weights.names import NAMINGS
from tests.models.weights.foreign import converted, foreign, model_of
from tests.tiny import change_architecture


def assert_equal(variables, expected):
    found = traverse_util.flatten_dict(variables)
    assert set(found) == set(expected)
    for path, array in found.items():
        np.testing.assert_array_equal(array, expected[path], err_msg=str(path))


_SMALL = {
    "dinov2": Architecture("dinov2", 8, 4, 12, 3, 2, 24, registers=2),
    "siglip": Architecture("siglip", 8, 4, 12, 3, 3, 24),
}


@pytest.fixture
def small(monkeypatch):
    """Vision Transformers of few channels, under the names of their sources."""
    for name, architecture in _SMALL.items():
        change_architecture(monkeypatch, vit.ARCHITECTURES, name, architecture)
        monkeypatch.setattr(names, "ARCHITECTURES", (*names.ARCHITECTURES, name))
    # The package has a function of this module's name
    module = importlib.import_module("delg_jax.models.weights.identify")
    monkeypatch.setattr(module, "ARCHITECTURES", names.ARCHITECTURES)


@pytest.mark.parametrize("source", sorted(NAMINGS))
@pytest.mark.parametrize("number", [0, 1, 2])
@pytest.mark.usefixtures("small")
def test_every_naming_of_a_source_is_recognised(rng, source, number):
    if number >= len(NAMINGS[source]):
        pytest.skip("the source has fewer namings")
    naming = NAMINGS[source][number]
    backbones = {"efficientnet": "efficientnet_lite0", "dinov2": "dinov2", "siglip": "siglip"}
    backbones["torchvision"] = "resnet50"  # one of the deep ones, whose tables test_names reads
    backbone = backbones.get(source, "tiny")
    model = model_of(backbone, naming.convention, gem_learned=True, local_head=False)
    model.conv4_stride = {"efficientnet": 16, "dinov2": 8, "siglip": 8}.get(source, 32)
    ours, theirs = foreign(naming, model, rng)
    assert weights.convention_of(source, theirs, model.backbone) == naming.convention
    found = weights.identify(theirs)
    if source in _SMALL:
        assert found == weights.Identity(source, source, source)
    if source == "delg_savedmodel":
        model.whitening = False  # whose name is found by patterns; tested below
    assert_equal(converted(source, theirs, model), ours)


def test_names_of_the_pytorch_port(rng):
    model = model_of("resnet50", attention_dim=4, dim_reduction="fc", gem_learned=True)
    _, theirs = foreign(NAMINGS["delg_pytorch"][0], model, rng)
    shapes = {name: array.shape for name, array in theirs.items()}
    assert shapes["globalmodel.stem.conv.weight"] == (64, 3, 7, 7)
    assert shapes["globalmodel.s1.b1.proj.weight"] == (256, 64, 1, 1)
    assert shapes["globalmodel.s1.b1.bn.running_var"] == (256,)
    assert shapes["globalmodel.s3.b6.f.c.weight"] == (1024, 256, 1, 1)
    assert shapes["globalmodel.s4.b3.f.b_bn.bias"] == (512,)
    assert shapes["globalmodel.head.fc.weight"] == (8, 2048)
    assert shapes["localmodel.conv1.weight"] == (4, 1024, 1, 1)
    assert shapes["localmodel.bn.weight"] == (4,)
    assert shapes["desc_cls.weight"] == (3, 8)
    assert shapes["att_cls.fc.weight"] == (3, 4)


def port(model, rng):
    """The arrays of the PyTorch port: it has no layer of its own for local descriptors."""
    ours, theirs = foreign(NAMINGS["delg_pytorch"][0], model, rng)
    theirs = {n: a for n, a in theirs.items() if not n.startswith("localmodel.descriptors")}
    theirs["globalmodel.head.pool.p"] = np.array([3.0], np.float32)
    theirs["desc_cls.t"] = np.zeros(1, np.float32)
    return ours, theirs


def test_local_descriptors_of_the_pytorch_port(rng):
    """They are the attention's first layer and its BatchNorm, before the ReLU."""
    model = model_of("tiny", local_dim=6, dim_reduction="fc")
    _, theirs = port(model, rng)
    variables = converted("delg_pytorch", theirs, model)
    del variables["params"]["global_classifier"]
    outputs = delg.build(model).apply(variables, rng.integers(0, 256, (1, 64, 64, 3), np.uint8))
    hidden = np.einsum(
        "hwc,oc->hwo", outputs.conv4[0], theirs["localmodel.conv1.weight"][..., 0, 0]
    )
    hidden = hidden + theirs["localmodel.conv1.bias"]
    norm = {name: theirs[f"localmodel.bn.{name}"] for name in ("weight", "bias")}
    centred = hidden - theirs["localmodel.bn.running_mean"]
    expected = centred / np.sqrt(theirs["localmodel.bn.running_var"] + 1e-5) * norm["weight"]
    expected = expected + norm["bias"]
    np.testing.assert_allclose(outputs.local_descriptors[0], expected, rtol=1e-4, atol=1e-5)


def test_a_model_with_an_autoencoder_takes_the_rest_of_the_pytorch_port(rng):
    model = model_of("tiny")
    _, theirs = port(model, rng)
    variables = converted("delg_pytorch", theirs, model)["params"]
    assert set(variables) == {
        *("resnet", "whiten", "attend", "global_classifier", "local_classifier")
    }


def test_another_power_than_that_of_the_weights_is_refused(rng):
    model = model_of("tiny")
    _, theirs = port(model, rng)
    theirs["globalmodel.head.pool.p"][:] = 2.5
    with pytest.raises(UserError, match=r"config\.model\.gem_power = 3\.0: .*2\.5"):
        converted("delg_pytorch", theirs, model)
    model.gem_learned = True
    assert converted("delg_pytorch", theirs, model)["params"]["power"] == 2.5
    model.update(gem_learned=False, pooling="avg")
    converted("delg_pytorch", theirs, model)


def test_classifiers_are_left_out_or_must_have_as_many_classes(rng):
    model = model_of("tiny", "keras")
    ours, theirs = foreign(NAMINGS["keras"][0], model, rng)
    assert theirs["cosine_weights"].shape == (8, 3)
    assert_equal(converted("keras", theirs, model), ours)
    model.num_classes = 5
    with pytest.raises(UserError, match=r"config\.model\.num_classes = 5: .*3"):
        converted("keras", theirs, model)
    model.num_classes = 0
    found = converted("keras", theirs, model)["params"]
    assert set(found) == {"resnet", "whiten", "attend", "reduce"}


@pytest.fixture(scope="module")
def theirs():
    """The arrays of a ResNet-50 of torchvision."""
    return foreign(NAMINGS["torchvision"][0], model_of("resnet50"), np.random.default_rng(0))[1]


@pytest.mark.parametrize(
    ("source", "backbone", "named"),
    [
        ("torchvision", "resnet18", "backbone = 'resnet18': .*resnet50"),
        ("torchvision", "resnet101", "backbone = 'resnet101': .*resnet50"),
        ("slim", "resnet50", "pretrained_source = 'slim': .*torchvision"),
        ("delg_savedmodel", "resnet50", "pretrained_source = 'delg_savedmodel': .*torchvision"),
    ],
)
def test_weights_of_another_kind_are_named(theirs, source, backbone, named):
    with pytest.raises(UserError, match=rf"^config\.model\.{named}"):
        converted(source, theirs, model_of(backbone))


HEADS = {
    "whiten/kernel": "delg/global/whitening/weights",
    "whiten/bias": "delg/global/whitening/biases",
    "attend/conv1/kernel": "delg/attention/conv1/weights",
    "attend/conv1/bias": "delg/attention/conv1/biases",
    "attend/norm1/scale": "delg/attention/conv1/BatchNorm/gamma",
    "attend/norm1/bias": "delg/attention/conv1/BatchNorm/beta",
    "attend/norm1/mean": "delg/attention/conv1/BatchNorm/moving_mean",
    "attend/norm1/var": "delg/attention/conv1/BatchNorm/moving_variance",
    "attend/conv2/kernel": "delg/attention/conv2/weights",
    "attend/conv2/bias": "delg/attention/conv2/biases",
    "reduce/encoder/kernel": "delg/autoencoder/conv1/weights",
    "reduce/encoder/bias": "delg/autoencoder/conv1/biases",
    "reduce/decoder/kernel": "delg/autoencoder/conv2/weights",
    "reduce/decoder/bias": "delg/autoencoder/conv2/biases",
}


def released(model, rng, heads):
    """Our variables, and the same as in a released model: Slim's names under a prefix."""
    ours, theirs = foreign(NAMINGS["slim"][0], model, rng)
    theirs = {f"delg/{name}": array for name, array in theirs.items()}
    _, drawn = foreign(NAMINGS["keras"][0], model, rng)
    modules = NAMINGS["keras"][0].modules(model.backbone)
    for path, name in heads.items():
        array = drawn[NAMINGS["keras"][0].name(path, modules)]
        collection = "batch_stats" if path.endswith(("/mean", "/var")) else "params"
        ours[collection, *path.split("/")] = theirs[name] = array
    return ours, theirs


def savedmodel():
    return model_of("tiny", "slim", num_classes=0)


def test_heads_of_a_released_model_are_found_by_pattern_and_shape(rng):
    model = savedmodel()
    ours, theirs = released(model, rng, HEADS)
    theirs["delg/global/whitening/weights"] = theirs["delg/global/whitening/weights"][None, None]
    theirs["global_step"] = np.zeros(())
    assert_equal(converted("delg_savedmodel", theirs, model), ours)


PUBLISHED = HEADS | {"whiten/kernel": "embed/weights", "whiten/bias": "embed/biases"}


@pytest.mark.parametrize("prefix", ["", "delg/"])
@pytest.mark.parametrize("folder", ["", "resnet_v1_tiny/"])
def test_the_published_names_of_the_released_models_are_known(rng, prefix, folder):
    """`resnet_v1_50/...` and `embed/{weights,biases}`; other fits of the pattern do not count."""
    model = savedmodel()
    heads = {path: name.replace("embed/", f"{folder}embed/") for path, name in PUBLISHED.items()}
    ours, theirs = released(model, rng, heads)
    theirs = {prefix + name.removeprefix("delg/"): array for name, array in theirs.items()}
    assert_equal(converted("delg_savedmodel", theirs, model), ours)
    identity = Identity("delg_savedmodel", "tiny", "slim")
    assert weights.head_fields(identity, theirs)["global_dim"] == model.global_dim
    kernel = theirs[f"{prefix}{folder}embed/weights"]
    theirs |= {f"{prefix}global/weights": 0 * kernel, f"{prefix}global/biases": 0 * kernel[0]}
    with pytest.raises(UserError, match="2 surplus .*global/biases.*global/weights") as error:
        converted("delg_savedmodel", theirs, model)
    assert "missing" not in str(error.value)


def test_parts_that_the_model_lacks_are_ignored(rng):
    model = savedmodel()
    _, theirs = released(model, rng, HEADS)
    model.update(local_head=False, whitening=False)
    assert set(converted("delg_savedmodel", theirs, model)["params"]) == {"resnet"}


def test_names_that_match_no_pattern_are_listed_and_can_be_mapped(rng):
    odd = HEADS | {"whiten/kernel": "delg/x/weights", "whiten/bias": "delg/x/biases"}
    model = savedmodel()
    ours, theirs = released(model, rng, odd)
    with pytest.raises(UserError) as error:
        converted("delg_savedmodel", theirs, model)
    message = str(error.value)
    assert "2 missing (whiten/bias, whiten/kernel)" in message
    assert "2 surplus (delg/x/biases, delg/x/weights)" in message
    assert "--mapping=FILE" in message
    mapping = {path: odd[path] for path in ("whiten/kernel", "whiten/bias")}
    assert_equal(converted("delg_savedmodel", theirs, model, mapping), ours)


def test_two_candidates_are_ambiguous(rng):
    model = savedmodel()
    _, theirs = released(model, rng, HEADS)
    for leaf in ("weights", "biases"):
        theirs[f"delg/global/embedding/{leaf}"] = theirs[f"delg/global/whitening/{leaf}"]
    with pytest.raises(UserError, match="2 missing .*4 surplus"):
        converted("delg_savedmodel", theirs, model)


def test_a_number_fills_what_a_released_model_does_not_have(rng):
    """Slim's convolutions before a BatchNorm have no bias."""
    model = savedmodel()
    ours, theirs = released(model, rng, HEADS)
    del theirs["delg/attention/conv1/biases"]
    ours["params", "attend", "conv1", "bias"] = np.zeros(6, np.float32)
    mapping = {"attend/conv1/bias": 0, "attend/conv1/kernel": HEADS["attend/conv1/kernel"]}
    assert_equal(converted("delg_savedmodel", theirs, model, mapping), ours)
