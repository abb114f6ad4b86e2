"""What may change when a run resumes, and what may not."""

import json
import re
import shutil

import jax
import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.models.variables import shapes
from delg_jax.training import checks, loop, train
from delg_jax.training.checkpoints import FOLDER
from delg_jax.training.train import train_and_evaluate
from delg_jax.training.trained_network import load_model
from delg_jax.workdir import stored_config
from tests.photographs import make_folder
from tests.tiny import random_variables, training_config
from tests.training.saved_runs import assert_same, save

STEPS = 6


def parallel_train_step(*_):
    """A step that changes the parameters without a gradient, and takes no time."""

    def step(state, batch, logs):
        params = jax.tree.map(lambda x: x + np.float32(batch["label"].sum()), state.params)
        state = state.replace(step=state.step + 1, params=params)
        return state, {"loss": np.float32(1), "nonfinite": -1}

    return step


@pytest.fixture(autouse=True)
def _fast(monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", parallel_train_step)
    monkeypatch.setattr(loop, "Validation", lambda *_: lambda *_: {})


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(make_folder(tmp_path_factory.mktemp("photographs")))
    config = config.copy_and_resolve_references().unlock()
    config.train.steps, config.train.tensorboard = STEPS, False
    config.train.eval_every = STEPS
    return config.lock()


@pytest.fixture(scope="module")
def whole(config, tmp_path_factory):
    """The workdir of a run that nothing disturbed."""
    folder = tmp_path_factory.mktemp("whole")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "parallel_train_step", parallel_train_step)
        patch.setattr(loop, "Validation", lambda *_: lambda *_: {})
        train_and_evaluate(config, folder)
    return folder


def changed(config, **fields):
    """Fields of sections, as train={"steps": 3}."""
    config = config.copy_and_resolve_references().unlock()
    for section, values in fields.items():
        config[section].update(values)
    return config.lock()


def half_of(whole, folder):
    """A run that was killed after its checkpoint of step 3."""
    shutil.copytree(whole, folder)
    shutil.rmtree(folder / FOLDER / str(STEPS))
    return folder


def assert_resumes(config, folder, caplog, step=3):
    caplog.set_level("INFO")
    record = train_and_evaluate(config, folder)
    assert f"resumed at step {step}" in caplog.text
    return record


@pytest.mark.parametrize(
    "fields",
    [
        {"data": {"workers": 1}},
        {
            "data": {
                "memory_megabytes": 1,
                "max_skipped": 9,
                "beam_options": "--runner=Direct",
                "tfds_dir": "/elsewhere",
                "ground_truth": "private",
                "distractors": "/absent",
            },
            "train": {"checkpoint_every": 2, "keep_checkpoints": 1, "chance_after": 3},
            "extract": {"max_size": 7},
        },
        {
            "train": {
                "batch_size": 8,
                "log_every": 2,
                "eval_every": 2,
                "eval_images": 5,
                "best_metric": "loss",
                "cache_gigabytes": 1.0,
                "interrupted_status": 0,
            }
        },
    ],
    ids=["workers", "data and extraction", "training"],
)
def test_what_does_not_decide_the_network_may_change(whole, config, tmp_path, caplog, fields):
    folder = half_of(whole, tmp_path / "run")
    assert_resumes(changed(config, **fields), folder, caplog)
    assert_same(load_model(config, folder)[1], load_model(config, whole)[1])


def test_the_batch_may_be_split_to_save_memory(whole, config, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(checks.jax, "device_count", lambda: 2)
    config = changed(config, train={"accumulation_steps": 4})
    assert_resumes(config, half_of(whole, tmp_path / "run"), caplog)


def test_the_images_may_have_moved(whole, config, tmp_path, caplog):
    folder = half_of(whole, tmp_path / "run")
    moved = shutil.copytree(config.data.root, tmp_path / "moved")
    assert_resumes(changed(config, data={"root": str(moved)}), folder, caplog)
    assert_same(load_model(config, folder)[1], load_model(config, whole)[1])


@pytest.mark.parametrize(
    ("section", "field", "value"),
    [
        ("train", "learning_rate", 0.5),
        ("train", "steps", 7),
        ("train", "batch_size", 16),
        ("train", "heads", "global"),
        ("data", "flip", True),
        ("model", "gem_power", 2.0),
    ],
)
def test_what_decides_the_network_is_refused(whole, config, tmp_path, section, field, value):
    folder = half_of(whole, tmp_path / "run")
    with pytest.raises(UserError, match=rf"workdir = .* config\.{section}\.{field}: "):
        train_and_evaluate(changed(config, **{section: {field: value}}), folder)
    assert (folder / FOLDER / "3").is_dir()


@pytest.fixture(scope="module")
def start(config, tmp_path_factory):
    """A workdir whose checkpoint a run can start from."""
    module = build(changed(config, model={"num_classes": 4}).model)
    folder = tmp_path_factory.mktemp("start")
    return save(folder, changed(config, model={"num_classes": 4}), random_variables(module))


def test_the_weights_that_a_run_started_from_may_be_gone(start, config, tmp_path, caplog):
    given = shutil.copytree(start, tmp_path / "given")
    config = changed(config, model={"checkpoint": str(given)})
    folder = tmp_path / "run"
    train_and_evaluate(config, folder)
    expected = load_model(config, folder)[1]
    shutil.rmtree(folder / FOLDER / str(STEPS))
    shutil.rmtree(given)
    assert_resumes(config, folder, caplog)
    assert_same(load_model(config, folder)[1], expected)


def test_a_finished_run_needs_neither_weights_nor_initial_values(whole, config, monkeypatch):
    for name in ("initialize", "load_pretrained", "require_start", "start_from_checkpoint"):
        monkeypatch.setattr(train, name, lambda *_: pytest.fail("not needed"))
    train_and_evaluate(config, whole)


def test_a_restored_state_has_the_shapes_of_fresh_variables(config):
    module = build(changed(config, model={"num_classes": 4}).model)
    fresh = jax.tree.map(lambda x: (x.shape, x.dtype), train.initialize(module, jax.random.key(0)))
    assert jax.tree.map(lambda x: (x.shape, x.dtype), shapes(module)) == fresh


def diverged(config, folder, step, monkeypatch):
    """A run whose loss is not finite at one step."""

    def parallel(*_):
        real = parallel_train_step()

        def one(state, batch, logs):
            state, metrics = real(state, batch, logs)
            return state, metrics | {"nonfinite": 0 if int(state.step) >= step else -1}

        return one

    with monkeypatch.context() as patch:
        patch.setattr(loop, "parallel_train_step", parallel)
        with pytest.raises(UserError) as raised:
            train_and_evaluate(config, folder)
    return str(raised.value)


def test_a_run_that_diverged_resumes_with_a_lower_rate(config, tmp_path, caplog, monkeypatch):
    message = diverged(config, tmp_path, 5, monkeypatch)
    assert re.search(r"config\.train\.learning_rate = 0\.01: .*step 5: loss", message)
    remedy = "--config.train.resume_with=train.learning_rate"
    assert "checkpoint 3" in message
    assert remedy in message
    field, _, value = remedy.removeprefix("--config.train.").partition("=")
    lower = changed(config, train={"learning_rate": 0.002, field: value})
    assert_resumes(lower, tmp_path, caplog)
    assert "config.train.learning_rate: 0.01 -> 0.002" in caplog.text
    rates = [
        json.loads(line).get("learning_rate")
        for line in (tmp_path / "logs" / "metrics.jsonl").read_text().splitlines()
    ]
    assert [r for r in rates if r][:4] == pytest.approx([0.01, 0.01 * 5 / 6, 0.01 * 4 / 6, 0.001])
    # The run is now one of the lower rate, also without the field
    for folder in ("logs", FOLDER):
        assert stored_config(tmp_path / folder)["train.learning_rate"] == 0.002
    train_and_evaluate(changed(lower, train={"resume_with": ""}), tmp_path)
    with pytest.raises(UserError, match=r"config\.train\.learning_rate: 0\.002 -> 0\.01"):
        train_and_evaluate(config, tmp_path)


def test_only_what_is_named_may_change(whole, config, tmp_path):
    fields = {"learning_rate": 0.002, "momentum": 0.5, "resume_with": "train.learning_rate"}
    with pytest.raises(UserError, match=r" in config\.train\.momentum: 0\.9 -> 0\.5$"):
        train_and_evaluate(changed(config, train=fields), half_of(whole, tmp_path / "run"))


def test_weights_that_moved_may_be_named(start, config, tmp_path, caplog):
    config = changed(config, model={"checkpoint": str(start)})
    train_and_evaluate(config, tmp_path / "run")
    shutil.rmtree(tmp_path / "run" / FOLDER / str(STEPS))
    config = changed(config, model={"checkpoint": "/moved"})
    with pytest.raises(UserError, match=r"workdir = .* config\.model\.checkpoint"):
        train_and_evaluate(config, tmp_path / "run")
    config = changed(config, train={"resume_with": "model.checkpoint"})
    assert_resumes(config, tmp_path / "run", caplog)
