import json
import shutil

import jax
import numpy as np
import pytest

from delg_jax import json_files
from delg_jax.errors import UserError
from delg_jax.training import loop
from delg_jax.training.train import train_and_evaluate
from delg_jax.training.trained_network import load_model
from tests.data.tfds_builders.published import make_gldv1
from tests.photographs import make_folder, truncate
from tests.tiny import training_config

STEPS = 24


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    return make_folder(tmp_path_factory.mktemp("photographs"))


@pytest.fixture(scope="module")
def config(photographs):
    config = training_config(photographs).copy_and_resolve_references().unlock()
    config.train.steps, config.train.checkpoint_every, config.train.eval_every = STEPS, 12, 12
    return config.lock()


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
    speed = ("images_per_second", "step_seconds")
    return {name: value for name, value in record.items() if name not in speed}


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
    assert kept == ["12", "24"]
    assert json_files.read(folder / "train_metrics.json", "metrics", json_files.anything) == record
    stored = json.loads((folder / "checkpoints" / "config.json").read_text())["config"]
    assert stored["train.steps"] == STEPS
    assert stored["model.num_classes"] == 4
    written = records(folder)
    assert [r["step"] for r in written if "loss" in r] == list(range(1, STEPS + 1))
    assert [r["step"] for r in written if "validation_loss" in r] == [12, 24]
    first = written[0]
    assert first["learning_rate"] == pytest.approx(config.train.learning_rate)
    assert not (folder / "logs" / "skipped.csv").exists()


def test_the_record_has_every_loss_of_both_splits(run):
    names = {"loss", "global_loss", "attention_loss", "reconstruction_loss", "global_accuracy"}
    assert {f"{split}{name}" for split in ("", "validation_") for name in names} <= set(run[1])
    assert {"gradient_norm", "learning_rate", "sparsity_conv4"} <= set(run[1])


def test_losses_fall(run):
    losses = [r["loss"] for r in records(run[0]) if "loss" in r]
    assert np.mean(losses[-6:]) < 0.8 * np.mean(losses[:6])


def test_a_finished_run_called_again_returns_the_same_record(run, config, monkeypatch):
    folder, record = run
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({}))
    before = records(folder)
    assert train_and_evaluate(config, folder) == record
    assert records(folder) == before


def test_a_killed_run_resumes_to_the_same_result(run, config, tmp_path):
    whole, record = run
    killed = shutil.copytree(whole, tmp_path / "run")
    shutil.rmtree(killed / "checkpoints" / "24")
    (killed / "train_metrics.json").unlink()
    assert without_speed(train_and_evaluate(config, killed)) == without_speed(record)
    assert [r["step"] for r in records(killed)] == [r["step"] for r in records(whole)]
    found, expected = load_model(config, killed)[1], load_model(config, whole)[1]
    jax.tree.map(np.testing.assert_array_equal, found, expected)


def test_another_configuration_is_refused_with_the_difference(run, config):
    folder, _ = run
    rule = r"workdir = .*another configuration.*config\.train\.learning_rate: 0\.01 -> 0\.5"
    with pytest.raises(UserError, match=rule):
        train_and_evaluate(changed(config, learning_rate=0.5), folder)
    assert (folder / "checkpoints" / "24").is_dir()


def test_a_run_resumes_with_another_logging_interval(run, config):
    folder, record = run
    fields = {"log_every": 5, "eval_every": 7, "checkpoint_every": 9, "keep_checkpoints": 1}
    assert train_and_evaluate(changed(config, **fields), folder) == record


def test_overwrite_starts_again(run, config, tmp_path, monkeypatch):
    monkeypatch.setattr(loop, "parallel_train_step", fake_step({"loss": np.float32(7)}))
    folder = shutil.copytree(run[0], tmp_path / "run")
    record = train_and_evaluate(changed(config, learning_rate=0.5, steps=1), folder, True)
    assert record["loss"] == 7
    assert [r["step"] for r in records(folder)] == [1, 1]
    assert not (folder / "checkpoints" / "24").exists()


def test_a_loss_that_is_not_finite_ends_the_run(config, tmp_path, monkeypatch):
    metrics = {"loss": np.float32(np.nan), "global_loss": np.float32(1)}
    fake = fake_step(metrics, lambda step: 1 if step >= 4 else -1)
    monkeypatch.setattr(loop, "parallel_train_step", fake)
    rule = r"config\.train\.learning_rate = 0\.01: .* step 4: loss is not .*no checkpoint"
    with pytest.raises(UserError, match=rule):
        train_and_evaluate(changed(config, log_every=5, checkpoint_every=5), tmp_path)
    assert not (tmp_path / "checkpoints" / "5").exists()


def test_the_checkpoint_before_a_run_diverged_is_kept(config, tmp_path, monkeypatch):
    fake = fake_step({"loss": np.float32(1)}, lambda step: 7 if step >= 5 else -1)
    monkeypatch.setattr(loop, "parallel_train_step", fake)
    expected = r"step 5: gradient global_classifier/kernel is not finite.*checkpoint 3 is kept"
    with pytest.raises(UserError, match=expected):
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
        with pytest.raises(UserError, match=r"config\.data\.max_skipped = 0: 1 images .*2\.jpg"):
            train_and_evaluate(config, tmp_path / "run")
    rows = (tmp_path / "run" / "logs" / "skipped.csv").read_text().splitlines()
    assert rows[0] == "image,reason"
    assert rows[1].startswith("class_1/2.jpg,")
    assert len(rows) == 2


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("batch_size", 12, "multiple of the 8 devices"),
        ("batch_size", 0, "multiple of the 8 devices"),
        ("steps", 0, "must be at least 1"),
        ("checkpoint_every", 0, "must be at least 1"),
        ("keep_checkpoints", 0, "must be at least 1"),
        ("learning_rate", -0.1, "must be at least 0"),
        ("clip_norm", 0.0, "must be above 0"),
        ("arcface_scale", 0.0, "must be above 0"),
        ("batch_norm", "none", "must be one of train, frozen, sync"),
        ("dtype", "float16", "must be one of float32, bfloat16"),
        ("heads", "both", "must be one of joint, global, local"),
    ],
)
def test_an_invalid_field_is_refused(config, tmp_path, field, value, rule):
    with pytest.raises(UserError, match=rf"config\.train\.{field} = .*{rule}"):
        train_and_evaluate(changed(config, **{field: value}), tmp_path / "run")
    assert not (tmp_path / "run").exists()  # else the corrected run would be refused there


def test_the_number_of_classes_must_be_that_of_the_data(config, tmp_path):
    config = config.copy_and_resolve_references()
    config.model.num_classes = 9
    with pytest.raises(UserError, match=r"config\.model\.num_classes = 9: .*the 4 classes"):
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
def test_a_run_without_validation_images_logs_a_warning(config, tmp_path, caplog, counts, share):
    config = prepared(config, tmp_path, counts, validation_share=share)
    record = train_and_evaluate(config, tmp_path / "run")
    assert np.isfinite(record["loss"])
    assert not [name for name in record if name.startswith("validation_")]
    assert [r["step"] for r in records(tmp_path / "run")] == [1, 2]
    assert sorted(p.name for p in (tmp_path / "run" / "checkpoints").glob("[0-9]")) == ["1", "2"]
    assert caplog.text.count("no validation images: only losses of training are recorded") == 1
    assert "no checkpoint is kept as the best" in caplog.text
    assert len(load_model(config, tmp_path / "run")[1]["params"])


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
