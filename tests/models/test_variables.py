import copy
import json

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.errors import UserError
from delg_jax.models import delg, variables
from delg_jax.models.weights.names import NAMINGS


@pytest.fixture
def model():
    model = default.get_config().model
    model.update(backbone="tiny", convention="torchvision", conv4_stride=16, num_classes=3)
    model.pretrained_source = "torchvision"
    model.update(global_dim=8, attention_dim=6, local_dim=4)
    return model


@pytest.fixture
def fresh(model, random_variables):
    image = np.zeros((1, 64, 64, 3), np.float32)
    return random_variables(delg.build(model), image, method="classify")


def load(fresh, model):
    """The variables, with those of the weights that a configuration names."""
    pretrained = variables.Pretrained.of(model)
    return variables.load_pretrained(delg.build(model), fresh, pretrained)


@pytest.fixture
def pretrained(model, fresh, rng, tmp_path):
    """A file that holds the backbone under torchvision's names, and what is in it."""
    naming = NAMINGS["torchvision"][0]
    arrays = {}
    for path, leaf in traverse_util.flatten_dict(fresh).items():
        if path[1] != "resnet":
            continue
        table = naming.norm if "norm" in path[-2] else naming.convolution
        name = f"{naming.modules('tiny')['/'.join(path[1:-1])]}.{table[path[-1]]}"
        value = leaf.transpose(3, 2, 0, 1) if leaf.ndim == 4 else leaf
        arrays[name] = rng.uniform(0.5, 1.5, value.shape).astype(np.float32)
    np.savez(tmp_path / "weights.npz", **arrays)
    return str(tmp_path / "weights.npz"), arrays


def test_initial_variables_have_all_parts_and_depend_on_the_key(model):
    module = delg.build(model, initial_scale=20.0)
    first, other = (variables.initialize(module, jax.random.key(seed)) for seed in (0, 1))
    assert variables.digest(first) != variables.digest(other)
    assert set(first) == {"params", "batch_stats"}
    assert first["params"]["global_classifier"]["scale"] == 20.0
    assert {"resnet", "whiten", "attend", "reduce", "local_classifier"} < set(first["params"])


def test_without_a_file_variables_are_unchanged(model, fresh):
    assert load(fresh, model) is fresh


def test_a_file_replaces_the_backbone_and_nothing_else(model, fresh, pretrained):
    model.pretrained, arrays = pretrained
    before = copy.deepcopy(fresh)
    loaded = load(fresh, model)
    assert jax.tree.structure(loaded) == jax.tree.structure(before)
    assert variables.digest(fresh) == variables.digest(before)
    stem = loaded["params"]["resnet"]["stem_conv"]["kernel"]
    np.testing.assert_array_equal(stem, arrays["conv1.weight"].transpose(2, 3, 1, 0))
    flat, old = traverse_util.flatten_dict(loaded), traverse_util.flatten_dict(before)
    changed = {path for path in flat if not np.array_equal(flat[path], old[path])}
    assert changed == {path for path in flat if path[1] == "resnet"}


def test_a_file_of_another_network_is_refused(model, fresh, pretrained):
    model.pretrained, _ = pretrained
    model.backbone = "resnet18"
    with pytest.raises(UserError, match="backbone = 'resnet18'"):
        load(fresh, model)


def test_digest_sees_values_names_shapes_and_types(fresh):
    def changed(change):
        tree = copy.deepcopy(fresh)
        change(tree["params"])
        return variables.digest(tree)

    def nudge(params):
        params["whiten"]["bias"][3] += 1e-6

    def rename(params):
        params["white"] = params.pop("whiten")

    def reshape(params):
        params["whiten"]["bias"] = params["whiten"]["bias"].reshape(2, 4)

    def retype(params):
        params["whiten"]["bias"] = params["whiten"]["bias"].view(np.int32)

    digests = {variables.digest(fresh), *map(changed, (nudge, rename, reshape, retype))}
    assert len(digests) == 5
    on_device = jax.tree.map(jax.numpy.asarray, fresh)
    assert variables.digest(on_device) == variables.digest(fresh)


def test_weights_of_another_convention_are_refused(model, fresh, pretrained):
    model.pretrained, _ = pretrained
    model.update(convention="slim", conv4_stride=32)
    with pytest.raises(UserError, match="config.model.convention = 'slim'"):
        load(fresh, model)


def test_variables_missing_from_the_file_are_logged(model, fresh, pretrained, caplog):
    model.pretrained, _ = pretrained
    with caplog.at_level("INFO", logger="delg_jax"):
        load(fresh, model)
    assert "lacks attend, reduce, whiten" in caplog.text


def test_a_mapping_takes_precedence_over_the_names(model, fresh, pretrained, tmp_path):
    model.pretrained, arrays = pretrained
    mapping = {"resnet/stem_norm/bias": "bn1.weight", "resnet/stem_norm/scale": 2}
    (tmp_path / "mapping.json").write_text(json.dumps(mapping))
    model.pretrained_mapping = str(tmp_path / "mapping.json")
    with pytest.raises(UserError, match="1 surplus .bn1.bias.$"):
        load(fresh, model)
    np.savez(model.pretrained, **{n: a for n, a in arrays.items() if n != "bn1.bias"})
    norm = load(fresh, model)["params"]["resnet"]["stem_norm"]
    np.testing.assert_array_equal(norm["bias"], arrays["bn1.weight"])
    np.testing.assert_array_equal(norm["scale"], np.full_like(norm["scale"], 2.0))
