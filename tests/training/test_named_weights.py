"""Weights given by one word, and what is found from their file."""

import dataclasses

import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.errors import UserError
from delg_jax.models.weights import PUBLISHED, head_fields, identify
from delg_jax.models.weights.names import NAMINGS
from delg_jax.training import trained_network
from delg_jax.training.convert import convert_weights
from delg_jax.training.named_weights import find_weights, use_weights
from delg_jax.training.trained_network import load_model
from tests import tiny
from tests.models.weights.foreign import foreign, model_of

BARE = {"whitening": False, "attention": "norm", "dim_reduction": "none", "num_classes": 0}
OWN = ("resnet18", "resnet50", "resnet101")
CASES = [
    *(("torchvision", "torchvision", backbone) for backbone in ("tiny", *OWN)),
    *(("slim", "slim", backbone) for backbone in OWN),
    *(("keras", "keras", backbone) for backbone in OWN),
    *(("delg_pytorch", "torchvision", backbone) for backbone in OWN),
    *(("efficientnet", "efficientnet", f"efficientnet_lite{n}") for n in (0, 2)),
]


@pytest.fixture(autouse=True)
def _fast_initialisers(monkeypatch):
    """Draws by NumPy, because compiling the initialisers takes seconds."""
    for place in ("models.variables", "training.convert"):
        monkeypatch.setattr(
            f"delg_jax.{place}.initialize", lambda module, _: tiny.random_variables(module, 1)
        )


def names_of(source, backbone, number=0):
    """The names of the kernels, as a file would have them."""
    return NAMINGS[source][number].kernels(backbone)


@pytest.mark.parametrize(("source", "convention", "backbone"), CASES)
def test_a_backbone_is_found_from_its_names(source, convention, backbone):
    found = identify(names_of(source, backbone))
    assert (found.source, found.convention, found.backbone) == (source, convention, backbone)


@pytest.mark.parametrize("number", [1, 2])
def test_cvnet_is_found_from_its_names(number):
    found = identify(names_of("delg_pytorch", "resnet101", number) | {"queue"})
    assert (found.source, found.backbone) == ("delg_pytorch", "resnet101")


@pytest.mark.parametrize("prefix", ["", "delg/"])
def test_a_released_model_is_slim_with_heads(prefix):
    names = {f"{prefix}{name}" for name in names_of("slim", "resnet50")} | {"embed/weights"}
    found = identify(names)
    assert (found.source, found.convention) == ("delg_savedmodel", "slim")


@pytest.mark.parametrize("names", [set(), {"conv1.weight"}, {"blocks.0.attn.qkv.weight"}])
def test_a_part_of_a_backbone_is_none(names):
    assert identify(names) is None
    whole = names_of("torchvision", "resnet50")
    assert identify(whole - {"layer4.2.conv3.weight"}) is None


def write(path, arrays):
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def bare(tmp_path, rng):
    """A file of a torchvision backbone, and our variables that it fills."""
    model = model_of("tiny", conv4_stride=16, **BARE)
    ours, theirs = foreign(NAMINGS["torchvision"][0], model, rng)
    return write(tmp_path / "bare.npz", theirs), ours


def test_one_word_gives_every_field(bare, tmp_path):
    path, ours = bare
    config = default.get_config()
    config.model.update(BARE)
    found = use_weights(config, path)
    assert found.source == config.model.pretrained_source == "torchvision"
    assert config.model.backbone == "tiny"
    assert config.model.conv4_stride == 16
    _, variables = load_model(config, tmp_path / "nowhere")
    for path, value in traverse_util.flatten_dict(variables).items():
        if not path[1].endswith("_classifier"):
            np.testing.assert_array_equal(value, ours[path])


def test_the_heads_of_a_file_are_found(rng, tmp_path):
    model = model_of("tiny", "keras", conv4_stride=16, num_classes=0)
    _, theirs = foreign(NAMINGS["keras"][0], model, rng)
    path = write(tmp_path / "whole.npz", theirs)
    assert find_weights(path).heads == {}
    assert find_weights(path, heads=True).heads == {
        **{"whitening": True, "attention": "learned", "dim_reduction": "ae"},
        **{"global_dim": 8, "attention_dim": 6, "local_dim": 4},
    }
    config = default.get_config()
    use_weights(config, path, heads=True)
    load_model(config, tmp_path / "nowhere")  # nothing is missing or misshapen


def test_the_heads_of_other_systems(rng):
    """The port has no autoencoder, but its attention's first layer; CVNet has whitening alone."""
    model = model_of("resnet18", dim_reduction="fc", local_dim=6)
    _, theirs = foreign(NAMINGS["delg_pytorch"][0], model, rng)
    theirs = {n: a for n, a in theirs.items() if not n.startswith("localmodel.descriptors")}
    found = head_fields(identify(theirs), theirs)
    assert (found["dim_reduction"], found["local_dim"], found["global_dim"]) == ("fc", 6, 8)
    _, theirs = foreign(NAMINGS["delg_pytorch"][2], model, rng)
    found = head_fields(identify(theirs), theirs)
    assert (found["whitening"], found["attention"]) == (True, "norm")
    assert found["dim_reduction"] == "none"


def test_a_published_name_is_kept_and_needs_no_reading(tmp_path, bare, monkeypatch):
    entry = dataclasses.replace(PUBLISHED["resnet50_v2"], file="bare.npz")
    monkeypatch.setitem(PUBLISHED, "resnet50_v2", entry)
    monkeypatch.setenv("DELG_CACHE", str(tmp_path))
    found = find_weights("resnet50_v2", offline=True)
    assert found.path == str(tmp_path / "bare.npz")
    assert found.fields["pretrained"] == "resnet50_v2"
    assert found.fields["backbone"] == "resnet50"
    config = default.get_config()
    config.model.update(found.fields)
    with pytest.raises(UserError, match="backbone = 'resnet50': "):
        load_model(config, tmp_path / "nowhere")  # which the file of this test holds


def test_a_workdir_gives_its_whole_network(bare, tmp_path):
    config = default.get_config()
    config.model.update(BARE | {"local_head": False})
    use_weights(config, bare[0])
    convert_weights(config, tmp_path / "run")
    fresh = default.get_config()
    use_weights(fresh, str(tmp_path / "run"))
    assert fresh.model.checkpoint == str(tmp_path / "run")
    assert not fresh.model.local_head
    module, _ = load_model(fresh, tmp_path / "nowhere")
    assert module.backbone == "tiny"


@pytest.mark.parametrize(
    ("word", "message"),
    [
        ("", " = '': .*efficientnet_lite0"),
        ("resnet50_v3", " = 'resnet50_v3': .*resnet50_v2"),
        ("absent/weights.npz", r" = 'absent/weights\.npz': "),
    ],
)
def test_other_words_are_refused(word, message):
    with pytest.raises(UserError, match=message):
        find_weights(word)


def test_weights_of_no_known_network_are_refused(tmp_path):
    path = write(tmp_path / "other.npz", {"encoder.weight": np.zeros((2, 2), np.float32)})
    with pytest.raises(UserError, match=r"other\.npz': .*encoder\.weight"):
        find_weights(path)
    config = default.get_config()
    config.model.pretrained = path
    with pytest.raises(UserError, match="pretrained_source = '': "):
        load_model(config, tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"whitening": True}, "config.model.whitening = True: .*False"),
        ({"attention": "learned"}, "config.model.attention = 'learned': .*'norm'"),
        ({"dim_reduction": "ae"}, "config.model.dim_reduction = 'ae': .*'none'"),
        ({"dim_reduction": "fc"}, "config.model.dim_reduction = 'fc': .*'none'"),
    ],
)
def test_weights_that_lack_a_head_are_refused_before_anything_is_initialised(
    bare, tmp_path, monkeypatch, changes, message
):
    config = default.get_config()
    use_weights(config, bare[0])
    config.model.update(BARE | changes)
    monkeypatch.setattr("delg_jax.models.variables.initialize", lambda *_: pytest.fail("too late"))
    for verb, workdir in ((trained_network.load_model, "nowhere"), (convert_weights, "run")):
        with pytest.raises(UserError, match=message):
            verb(config, tmp_path / workdir)


def test_heads_that_are_not_used_are_not_asked_for(bare, tmp_path, caplog):
    config = default.get_config()
    use_weights(config, bare[0])
    config.model.update(BARE | {"local_head": False, "attention": "learned"})
    with caplog.at_level("INFO", logger="delg_jax"):
        load_model(config, tmp_path / "nowhere")
    assert "lacks" not in caplog.text
