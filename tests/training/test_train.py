import json
import os
import shutil
import signal

import jax
import numpy as np
import pytest

from configs import default
from delg_jax import json_files
from delg_jax.data import pipeline
from delg_jax.errors import UserError
from delg_jax.training import feature_cache, loop, train
from delg_jax.training.interruption import Interrupted
from delg_jax.training.train import Length, length_of, train_and_evaluate
from delg_jax.training.trained_network import load_model
from tests.data.tfds_builders.published import make_gldv1
from tests.photographs import make_folder, truncate
from tests.tiny import random_variables, training_config

STEPS = 12


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def config(photographs):
    config = training_config(photographs).copy_and_resolve_references().unlock()
    config.train.steps, config.train.checkpoint_every, config.train.eval_every = STEPS, 6, 6
    config.data.image_size = 32
    return config.lock()


@pytest.fixture(scope="module", autouse=True)
def compiled_once():
    """Compiles the steps of a network once for all real runs, whose optimisers are the same."""
    with pytest.MonkeyPatch.context() as patch:
        for name in ("parallel_train_step", "parallel_eval_step"):
            patch.setattr(loop, name, _once(getattr(loop, name)))
        yield


def _once(build):
    made = {}

    def built(state, module, *rest):
        key = module, jax.tree.structure(state)
        if key not in made:
            made[key] = build(state, module, *rest)
        return made[key]

    return built


@pytest.fixture(scope="module")
def run(config, tmp_path_factory):
    """The folder of a whole run, and the record that it returned."""
    folder = tmp_path_factory.mktemp("run")
    return folder, train_and_evaluate(config, folder)


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.train.update(fields)
    return config.lock()


def records(folder):
    lines = (folder / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines]


def without_speed(record):
    speed = ("images_per_second", "step_seconds", "input_wait_share")
    return {name: value for name, value in record.items() if name not in speed}


@pytest.fixture
def drawn(monkeypatch):
    """Initial values by NumPy, for networks whose initialisers no other test compiles."""
    monkeypatch.setattr(train, "initialize", lambda module, key: random_variables(module))


def fake_step(metrics, nonfinite=lambda step: -1):
    """Replaces the compiled step in tests of the code around it."""

    def parallel_train_step(*_):
        def step(state, batch, logs):
            state = state.replace(step=state.step + 1)
            return state, metrics | {"nonfinite": nonfinite(int(state.step))}

        return step

    return parallel_train_step


def test_a_run_leaves_checkpoints_metrics_and_configuration(run, config):
    folder, record = run
    kept = sorted(path.name for path in (folder / "checkpoints").iterdir() if path.is_dir())
    assert kept == ["12", "6"]
    assert json_files.read(folder / "train_metrics.json", "metrics", json_files.anything) == record
    stored = json.loads((folder / "checkpoints" / "config.json").read_text())["config"]
    assert stored["train.steps"] == STEPS
    assert stored["model.num_classes"] == 4
    written = records(folder)
    assert [r["step"] for r in written if "loss" in r] == list(range(1, STEPS + 1))
    assert [r["step"] for r in written if "validation_loss" in r] == [6, 12]
    first = written[0]
    assert first["learning_rate"] == pytest.approx(config.train.learning_rate)
    assert not (folder / "logs" / "skipped.csv").exists()


def test_the_record_has_every_loss_of_both_splits(run):
    names = {"loss", "global_loss", "attention_loss", "reconstruction_loss", "global_accuracy"}
    assert {f"{split}{name}" for split in ("", "validation_") for name in names} <= set(run[1])
    assert {"gradient_norm", "learning_rate", "sparsity_conv4"} <= set(run[1])


def test_losses_fall(run):
    losses = [r["loss"] for r in records(run[0]) if "loss" in r]
    assert np.mean(losses[-3:]) < 0.8 * np.mean(losses[:3])


def test_a_finished_run_called_again_returns_the_same_record(run, config, monkeypatch):
    folder, record = run
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({}))
    before = records(folder)
    assert train_and_evaluate(config, folder) == record
    assert records(folder) == before


def test_a_killed_run_resumes_to_the_same_result(run, config, tmp_path):
    whole, record = run
    killed = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(killed / "checkpoints" / "12")
    (killed / "train_metrics.json").unlink()
    assert without_speed(train_and_evaluate(config, killed)) == without_speed(record)
    assert [r["step"] for r in records(killed)] == [r["step"] for r in records(whole)]
    found, expected = load_model(config, killed)[1], load_model(config, whole)[1]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_configuration_is_refused_with_the_difference(run, config):
    folder, _ = run
    names = r"workdir = .*config\.train\.learning_rate: 0\.01 -> 0\.5"
    with pytest.raises(UserError, match=names):
        train_and_evaluate(changed(config, learning_rate=0.5), folder)
    assert (folder / "checkpoints" / "12").is_dir()


def test_a_run_resumes_with_another_logging_interval(run, config):
    folder, record = run
    fields = {"log_every": 5, "eval_every": 4, "checkpoint_every": 9, "keep_checkpoints": 1}
    assert train_and_evaluate(changed(config, **fields), folder) == record


def test_overwrite_starts_again(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(7)}))
    folder = shutil.copytree(run[0], tmp_path / "run")
    record = train_and_evaluate(changed(config, learning_rate=0.5, steps=1), folder, True)
    assert record["loss"] == 7
    assert [r["step"] for r in records(folder)] == [1, 1]
    assert not (folder / "checkpoints" / "12").exists()


def stop_in(function, call):
    """Calls through, and sends SIGTERM at one call, counted from 1."""
    calls = []

    def counted(*arguments, **options):
        calls.append(arguments)
        if len(calls) == call:
            os.kill(os.getpid(), signal.SIGTERM)
        return function(*arguments, **options)

    return counted


def stopped_in_validation(config, folder, monkeypatch, validation):
    """A run that is stopped at the first batch of a validation."""
    with monkeypatch.context() as patch:
        real = loop.parallel_eval_step
        first = 2 * validation - 1  # 12 images in batches of 8
        patch.setattr(loop, "parallel_eval_step", lambda *a: stop_in(real(*a), first))
        with pytest.raises(Interrupted) as raised:
            train_and_evaluate(config, folder)
    assert raised.value.code == config.train.interrupted_status


@pytest.mark.parametrize(
    ("validation", "fields"),
    [(1, {"best_metric": "validation_attention_loss", "checkpoint_every": 5}), (2, {})],
    ids=["for the best", "at the end"],
)
def test_a_run_that_is_stopped_in_a_validation_saves_at_once_and_repeats_it(
    run, config, tmp_path, monkeypatch, validation, fields
):
    whole, record = run
    folder, step = tmp_path / "run", 6 * validation
    config = changed(config, **fields)
    stopped_in_validation(config, folder, monkeypatch, validation)
    assert (folder / "checkpoints" / str(step)).is_dir()
    assert not (folder / "train_metrics.json").exists()
    assert not [r for r in records(folder) if r["step"] == step and "validation_loss" in r]
    assert without_speed(train_and_evaluate(config, folder)) == without_speed(record)
    assert [r["step"] for r in records(folder)] == [r["step"] for r in records(whole)]
    found, expected = load_model(config, folder)[1], load_model(config, whole)[1]
    jax.tree.map(np.testing.assert_array_equal, found, expected)
    if name := fields.get("best_metric"):
        metrics = folder / "checkpoints" / str(step) / "metrics" / "metrics"
        (value,) = [r[name] for r in records(folder) if r["step"] == step and name in r]
        assert json.loads(metrics.read_text()) == {name: value}


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_a_state_that_is_not_finite_is_not_saved_when_a_run_is_stopped(
    config, tmp_path, monkeypatch, value
):
    """Between two records, a step looks at the losses only."""

    def parallel_train_step(*_):
        def step(state, batch, logs):
            bias = np.where(np.arange(16) == 3, value, 0.0).astype(np.float32)
            whiten = {**state.params["whiten"], "bias": bias}
            state = state.replace(step=state.step + 1, params={**state.params, "whiten": whiten})
            return state, {"loss": np.float32(1), "nonfinite": -1}

        return stop_in(step, 2)

    monkeypatch.setattr(loop, "parallel_train_step", parallel_train_step)
    with pytest.raises(UserError, match="step 2: .*params/whiten/bias"):
        train_and_evaluate(changed(config, log_every=100), tmp_path)
    assert not list(tmp_path.glob("checkpoints/[0-9]*"))


def fake_validation(values):
    """Validations that give these values of the attention's accuracy, one after the other."""
    left = iter(values)
    return lambda *_: lambda *_: {"validation_attention_accuracy": next(left)}


@pytest.mark.usefixtures("drawn")
def test_the_best_is_saved_and_kept_although_the_cadences_never_meet(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    monkeypatch.setattr(loop, "Validation", fake_validation([0.2, 0.7, 0.3, 0.7, 0.1]))
    fields = {"steps": 10, "eval_every": 2, "checkpoint_every": 3, "keep_checkpoints": 1}
    train_and_evaluate(changed(config, **fields, heads="local"), tmp_path)
    kept = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
    assert sorted(kept) == [4, 10]  # the first of two equal ones, and the last
    metrics = tmp_path / "checkpoints" / "4" / "metrics" / "metrics"
    assert json.loads(metrics.read_text()) == {"validation_attention_accuracy": 0.7}


@pytest.mark.usefixtures("drawn")
def test_a_worse_validation_saves_nothing(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    monkeypatch.setattr(loop, "Validation", fake_validation([0.2, 0.7, 0.3, 0.6, 0.1]))
    fields = {"steps": 10, "eval_every": 2, "checkpoint_every": 100, "keep_checkpoints": 9}
    train_and_evaluate(changed(config, **fields, heads="local"), tmp_path)
    kept = [int(p.name) for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()]
    assert sorted(kept) == [2, 4, 10]


def test_validation_takes_a_fixed_choice_of_images(config, tmp_path, monkeypatch):
    taken = []

    def validation(source, *_):
        taken.append(source)
        return lambda *_: {}

    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    monkeypatch.setattr(loop, "Validation", validation)
    for number, (images, seed) in enumerate([(5, 0), (5, 1), (0, 0)]):
        chosen = changed(config, steps=1, eval_images=images).copy_and_resolve_references()
        chosen.seed = seed  # does not matter
        train_and_evaluate(chosen.lock(), tmp_path / str(number))
    assert [len(source) for source in taken] == [5, 5, 12]
    assert taken[0].names == taken[1].names


@pytest.mark.parametrize("log_every", [1, 100])
def test_a_run_is_stopped_between_steps(config, tmp_path, monkeypatch, log_every):
    fake = fake_step({"loss": np.float32(1)})
    monkeypatch.setattr(loop, "parallel_train_step", lambda *a: stop_in(fake(*a), 5))
    config = changed(config, log_every=log_every, interrupted_status=99)
    with pytest.raises(Interrupted) as raised:
        train_and_evaluate(config, tmp_path)
    assert raised.value.code == 99
    assert [p.name for p in (tmp_path / "checkpoints").iterdir() if p.is_dir()] == ["5"]
    assert [r["step"] for r in records(tmp_path)] == ([1, 2, 3, 4, 5] if log_every == 1 else [])


@pytest.mark.parametrize(
    ("module", "name"),
    [
        (train, "open_training"),
        pytest.param(train, "initialize", marks=pytest.mark.slow),
        pytest.param(pipeline, "training_batches", marks=pytest.mark.slow),
        (feature_cache, "_write"),
    ],
)
@pytest.mark.usefixtures("drawn")
def test_a_run_that_is_stopped_before_its_first_step_leaves_no_checkpoint(
    config, tmp_path, monkeypatch, module, name
):
    config = changed(config, freeze_backbone=True, cache_features=True)
    config = config.copy_and_resolve_references().unlock()
    config.data.crop_area = config.data.crop_aspect = (1.0, 1.0)
    with monkeypatch.context() as patch:
        patch.setattr(module, name, stop_in(getattr(module, name), 1))
        with pytest.raises(Interrupted):
            train_and_evaluate(config, tmp_path)
    assert not list(tmp_path.glob("checkpoints/[0-9]*"))
    assert not list(tmp_path.glob("cache/.*"))
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    assert train_and_evaluate(config, tmp_path)["loss"] == 1


def test_a_loss_that_is_not_finite_ends_the_run(config, tmp_path, monkeypatch):
    metrics = {"loss": np.float32(np.nan), "global_loss": np.float32(1)}
    fake = fake_step(metrics, lambda step: 1 if step >= 4 else -1)
    monkeypatch.setattr(loop, "parallel_train_step", fake)
    names = r"config\.train\.learning_rate = 0\.01: .* step 4: loss .*no checkpoint"
    with pytest.raises(UserError, match=names):
        train_and_evaluate(changed(config, log_every=5, checkpoint_every=5), tmp_path)
    assert not (tmp_path / "checkpoints" / "5").exists()


def test_the_checkpoint_before_a_run_diverged_is_kept(config, tmp_path, monkeypatch):
    fake = fake_step({"loss": np.float32(1)}, lambda step: 7 if step >= 5 else -1)
    monkeypatch.setattr(loop, "parallel_train_step", fake)
    with pytest.raises(UserError, match="step 5: .*global_classifier/kernel.*checkpoint 3"):
        train_and_evaluate(changed(config, log_every=100, checkpoint_every=3), tmp_path)
    assert (tmp_path / "checkpoints" / "3").exists()
    assert not (tmp_path / "checkpoints" / "6").exists()


@pytest.mark.parametrize("limit", [0, 1])
def test_a_bad_image_counts_towards_max_skipped(config, tmp_path, monkeypatch, limit):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    config = config.copy_and_resolve_references().unlock()
    config.data.root = str(make_folder(tmp_path / "photographs"))
    config.data.max_skipped = limit
    truncate(tmp_path / "photographs" / "train" / "class_1" / "2.jpg")
    if limit:
        train_and_evaluate(config, tmp_path / "run")
    else:
        with pytest.raises(UserError, match=r"config\.data\.max_skipped = 0: 1 .*2\.jpg"):
            train_and_evaluate(config, tmp_path / "run")
    rows = (tmp_path / "run" / "logs" / "skipped.csv").read_text().splitlines()
    assert rows[0] == "image,reason"
    assert rows[1].startswith("class_1/2.jpg,")
    assert len(rows) == 2


def test_the_number_of_classes_must_be_that_of_the_data(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.num_classes = 9
    with pytest.raises(UserError, match=r"config\.model\.num_classes = 9: .*4 classes"):
        train_and_evaluate(config, tmp_path)


def prepared(config, tmp_path, counts, **fields):
    """The configuration on synthetic landmarks with the given numbers of images."""
    make_gldv1(tmp_path / "raw", counts)
    config = changed(
        config, steps=2, eval_every=1, checkpoint_every=1
    ).copy_and_resolve_references()
    fields |= {"root": str(tmp_path / "raw"), "tfds_dir": str(tmp_path / "tfds")}
    config.data.update({"name": "gldv1", **fields})
    return config.lock()


@pytest.mark.parametrize(
    ("counts", "share"), [((5, 2, 3), 0.0), ((1,) * 9, 0.2)], ids=["share 0", "single images"]
)
@pytest.mark.usefixtures("drawn")
def test_a_run_without_validation_images_logs_a_warning(
    config, tmp_path, monkeypatch, caplog, counts, share
):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    config = prepared(config, tmp_path, counts, validation_share=share)
    record = train_and_evaluate(config, tmp_path / "run")
    assert not [name for name in record if name.startswith("validation_")]
    assert [r["step"] for r in records(tmp_path / "run")] == [1, 2]
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("[0-9]")) == ["1", "2"]
    assert caplog.text.count("no validation images") == 1
    assert "no checkpoint" in caplog.text
    assert len(load_model(config, tmp_path / "run")[1]["params"])


@pytest.mark.usefixtures("drawn")
def test_validation_images_that_are_all_bad_have_no_loss(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    root = make_folder(tmp_path / "photographs", classes=2, validation=1)
    for path in (root / "validation").rglob("*.jpg"):
        truncate(path)
    config = changed(config, steps=1, best_metric="validation_loss").copy_and_resolve_references()
    config.data.update({"root": str(root), "max_skipped": 2})
    record = train_and_evaluate(config.lock(), tmp_path / "run")
    assert not [name for name in record if name.startswith("validation_")]


def test_the_same_seed_gives_the_same_network(config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(1)}))
    found = []
    for name in ("first", "second"):
        train_and_evaluate(changed(config, steps=1), tmp_path / name)
        found.append(load_model(config, tmp_path / name)[1])
    jax.tree.map(np.testing.assert_array_equal, *found)


def test_the_precision_of_products_is_that_of_the_field(config, tmp_path, monkeypatch):
    found = []

    def parallel_train_step(*_):
        found.append(jax.config.jax_default_matmul_precision)
        return fake_step({"loss": np.float32(1)})()

    monkeypatch.setattr(loop, "parallel_train_step", parallel_train_step)
    for precision in ("default", "highest"):
        train_and_evaluate(
            changed(config, matmul_precision=precision, steps=1), tmp_path / precision
        )
    assert found == ["default", "highest"]


@pytest.mark.slow
def test_a_run_that_began_with_shards_ends_without(config, tmp_path, monkeypatch):
    """4 classes on 8 devices, half of which hold none; stopped in step 3 of 6."""
    config = changed(config, steps=6, batch_norm="frozen", weight_decay=1e-3)
    train_and_evaluate(config, tmp_path / "whole")
    with monkeypatch.context() as patch:
        real = loop.parallel_train_step
        patch.setattr(loop, "parallel_train_step", lambda *a: stop_in(real(*a), 3))
        with pytest.raises(Interrupted):
            train_and_evaluate(changed(config, shard_classifier=True), tmp_path / "mixed")
    (first, *_) = records(tmp_path / "mixed")
    train_and_evaluate(config, tmp_path / "mixed")
    assert len(first) == len(records(tmp_path / "whole")[0])
    (_, found), (_, expected) = (load_model(config, tmp_path / n) for n in ("mixed", "whole"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)


def test_epochs_are_images_seen_per_image():
    length = Length(steps=30, batch_size=4, train_images=80)
    assert length.images_seen == 120
    assert length.epochs == 1.5
    assert str(length) == "120 images in 30 steps of 4: 1.5 epochs of 80 images"


def test_the_default_is_the_length_of_the_paper():
    length = length_of(default.get_config(), 960_000)
    assert length.images_seen == 24_000_000
    assert length.epochs == 25
