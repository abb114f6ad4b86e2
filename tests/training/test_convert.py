import json
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.configuration import flatten
from delg_jax.errors import UserError
from delg_jax.models import variables as model_variables
from delg_jax.models.delg import build
from delg_jax.models.variables import digest
from delg_jax.models.weights.names import NAMINGS
from delg_jax.training import convert
from delg_jax.training.convert import convert_weights
from delg_jax.training.train import train_and_evaluate
from delg_jax.training.trained_network import load_model, start_from_checkpoint
from tests import photographs, tiny
from tests.models.weights.foreign import foreign

NAMING = NAMINGS["torchvision"][0]
WITHOUT_HEADS = {"whitening": False, "attention": "norm", "dim_reduction": "none"}


@pytest.fixture(autouse=True)
def _fast_initialisers(monkeypatch):
    """Draws by NumPy, because compiling the initialisers takes seconds."""

    def initialize(module, key):
        return tiny.random_variables(module, int(jax.random.key_data(key)[-1]))

    monkeypatch.setattr(model_variables, "initialize", initialize)
    monkeypatch.setattr(convert, "initialize", initialize)


def write_weights(path, model, seed):
    """A file of a random backbone under torchvision's names."""
    variables = traverse_util.flatten_dict(tiny.random_variables(build(model), seed))
    modules, arrays = NAMING.modules(model.backbone), {}
    for (_, *module, leaf), array in variables.items():
        theirs = modules.get("/".join(module))
        if theirs is not None:
            names = NAMING.norm if "norm" in module[-1] else NAMING.convolution
            array = np.asarray(array)
            array = array.transpose(3, 2, 0, 1) if array.ndim == 4 else array
            arrays[f"{theirs}.{names[leaf]}"] = array
    np.savez(path, **arrays)
    return str(path)


@pytest.fixture
def config(tmp_path):
    config = tiny.tiny_config()
    config.model.update(convention="torchvision", conv4_stride=16, **WITHOUT_HEADS)
    config.model.pretrained = write_weights(tmp_path / "weights.npz", config.model, seed=7)
    return config


def without_weights(config, checkpoint=""):
    config = config.copy_and_resolve_references()
    config.model.pretrained, config.model.checkpoint = "", checkpoint
    return config


def test_the_checkpoint_holds_the_same_bits(config, tmp_path):
    _, direct = load_model(config, tmp_path / "nowhere")
    folder = convert_weights(config, tmp_path / "run")
    for taken in (
        load_model(without_weights(config), tmp_path / "run"),
        load_model(without_weights(config, str(tmp_path / "run")), tmp_path / "other"),
        load_model(without_weights(config, str(folder)), tmp_path / "other"),
    ):
        assert digest(taken[1]) == digest(direct)
    assert digest(load_model(without_weights(config), tmp_path / "nowhere")[1]) != digest(direct)


def test_a_second_call_changes_nothing_and_other_weights_are_refused(config, tmp_path):
    convert_weights(config, tmp_path / "run")
    convert_weights(config, tmp_path / "run")
    write_weights(tmp_path / "weights.npz", config.model, seed=8)
    with pytest.raises(UserError, match="other weights"):
        convert_weights(config, tmp_path / "run")
    config.model.global_dim = 12
    with pytest.raises(UserError, match="global_dim"):
        convert_weights(config, tmp_path / "run")
    convert_weights(config, tmp_path / "run", overwrite=True)
    assert load_model(without_weights(config), tmp_path / "run")[0].global_dim == 12


def test_weights_must_be_named(config, tmp_path):
    with pytest.raises(UserError, match=r"config.model.pretrained = ''"):
        convert_weights(without_weights(config), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_training_starts_from_it_with_fresh_classifiers(config, tmp_path):
    convert_weights(config, tmp_path / "run")
    _, converted = load_model(config, tmp_path / "run")
    config = without_weights(config, str(tmp_path / "run"))
    config.model.num_classes = 5
    fresh = tiny.random_variables(build(config.model), 1)
    started = start_from_checkpoint(fresh, config)
    for name, value in started["params"].items():
        origin = fresh if name.endswith("_classifier") else converted
        assert digest({"x": value}) == digest({"x": origin["params"][name]})
    assert digest(started["batch_stats"]) == digest(converted["batch_stats"])
    assert start_from_checkpoint(fresh, without_weights(config)) is fresh


@pytest.mark.slow
def test_a_run_started_from_it_takes_precedence(tmp_path):
    config = tiny.training_config(photographs.make_folder(tmp_path / "data"))
    with config.unlocked():
        config.train.steps, config.train.learning_rate = 1, 0.1
        config.model.update(convention="torchvision", conv4_stride=16, **WITHOUT_HEADS)
        config.model.pretrained = write_weights(tmp_path / "weights.npz", config.model, seed=7)
    convert_weights(config, tmp_path / "converted")
    config = without_weights(config, str(tmp_path / "converted"))
    train_and_evaluate(config, tmp_path / "run")
    _, converted = load_model(config, tmp_path / "elsewhere")
    _, trained = load_model(config, tmp_path / "run")
    assert digest(trained) != digest(converted)
    assert digest(trained) == digest(load_model(without_weights(config), tmp_path / "run")[1])


_FRESH_PROCESS = """
import json, sys
from pathlib import Path
import jax, numpy as np
from configs import default
from delg_jax.configuration import override
from delg_jax.training.trained_network import load_model

config = override(default.get_config(), json.loads(sys.argv[4]))
module, variables = load_model(config, Path(sys.argv[1]))
outputs = jax.jit(module.apply)(variables, np.load(sys.argv[2]))
np.savez(sys.argv[3], conv5=outputs.conv5, whole=outputs.global_descriptor, s=outputs.attention)
"""


def test_a_fresh_process_computes_the_same_bits(config, tmp_path, rng):
    module, variables = load_model(config, tmp_path / "nowhere")
    convert_weights(config, tmp_path / "run")
    np.save(tmp_path / "image.npy", rng.integers(0, 256, (1, 96, 80, 3), np.uint8))
    plain, ours = flatten(default.get_config()), flatten(without_weights(config))
    changes = {path: value for path, value in ours.items() if value != plain[path]}
    paths = [str(tmp_path / name) for name in ("run", "image.npy", "found.npz")]
    command = [sys.executable, "-c", _FRESH_PROCESS, *paths, json.dumps(changes)]
    subprocess.run(command, cwd=Path(default.__file__).parents[1], check=True)
    expected = jax.jit(module.apply)(variables, np.load(tmp_path / "image.npy"))
    with np.load(tmp_path / "found.npz") as found:
        np.testing.assert_array_equal(found["conv5"], expected.conv5)
        np.testing.assert_array_equal(found["whole"], expected.global_descriptor)
        np.testing.assert_array_equal(found["s"], expected.attention)


def test_classifiers_are_converted_on_request(tmp_path, rng):
    """With num_classes they must fit; without, the checkpoint has fresh ones."""
    config = tiny.tiny_config()
    config.model.update(convention="keras", pretrained_source="keras", num_classes=3)
    ours, theirs = foreign(NAMINGS["keras"][0], config.model, rng)
    config.model.pretrained = str(tmp_path / "weights.npz")
    np.savez(config.model.pretrained, **theirs)
    convert_weights(config, tmp_path / "run")
    _, variables = load_model(without_weights(config), tmp_path / "run")
    kernel = variables["params"]["global_classifier"]["kernel"]
    np.testing.assert_array_equal(kernel, ours["params", "global_classifier", "kernel"])
    config.model.num_classes = 4
    with pytest.raises(UserError, match=r"config\.model\.num_classes = 4: .*3"):
        convert_weights(config, tmp_path / "other")
    config.model.num_classes = 0
    assert convert_weights(config, tmp_path / "third").is_dir()
