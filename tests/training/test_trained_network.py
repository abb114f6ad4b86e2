import shutil

import jax
import numpy as np
import orbax.checkpoint as ocp
import pytest
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models.delg import build
from delg_jax.training.checkpoints import FOLDER
from delg_jax.training.trained_network import (
    attention_thresholds,
    load_model,
    require_start,
    start_from_checkpoint,
)
from tests.tiny import random_variables
from tests.training.saved_runs import CLASSES, assert_same, save, save_with_metrics, times


def changed(config, **fields):
    config = config.copy_and_resolve_references().unlock()
    config.model.update(fields)
    return config.lock()


def test_one_of_several_checkpoints_may_be_named(config, variables, saved):
    named = changed(config, checkpoint=str(saved / FOLDER / "1"))
    assert_same(load_model(named, saved)[1], times(1, variables))


def test_quantiles_of_the_attention_are_kept(config, variables, saved, tmp_path):
    found = {"attention_p50": 0.5, "attention_p75": 0.75}
    metrics = {**found, "attention_max": 2.0, "loss": 1.0}
    save_with_metrics(tmp_path, config, variables, {1: metrics, 2: {**metrics, **found}})
    for path in (tmp_path, tmp_path / FOLDER, tmp_path / FOLDER / "2"):
        assert attention_thresholds(path) == found
    with pytest.raises(UserError, match="quantiles"):
        attention_thresholds(saved)


@pytest.mark.parametrize("classes", [0, CLASSES])
def test_extraction_finds_the_network_of_its_workdir(config, variables, saved, classes):
    module, found = load_model(changed(config, num_classes=classes), saved)
    assert module.num_classes == CLASSES
    assert_same(found, times(2, variables))


@pytest.mark.parametrize("folder", ["", FOLDER])
def test_a_named_checkpoint_wins_over_the_workdir(config, variables, saved, tmp_path, folder):
    own = save(tmp_path, config, random_variables(build(config.model), seed=5))
    named = changed(config, checkpoint=str(saved / folder))
    assert_same(load_model(named, own)[1], times(2, variables))


def test_a_run_that_started_from_the_named_checkpoint_wins(config, saved, tmp_path):
    named = changed(config, checkpoint=str(saved))
    fine_tuned = random_variables(build(config.model), seed=5)
    save(tmp_path, named, fine_tuned, steps=(1,))
    assert_same(load_model(named, tmp_path)[1], fine_tuned)


@pytest.mark.parametrize(
    ("fields", "difference"),
    [
        (
            {"local_dim": 16, "pooling": "avg"},
            "local_dim: 8 -> 16; config.model.pooling: 'gem' -> ",
        ),
        ({"num_classes": 7}, "num_classes: 4 -> 7"),
    ],
)
def test_another_architecture_is_refused_with_the_difference(config, saved, fields, difference):
    names = rf"config\.model\.checkpoint = .*config\.model\.{difference}"
    with pytest.raises(UserError, match=names):
        load_model(changed(config, **fields), saved)


@pytest.mark.parametrize("exists", [True, False])
def test_a_folder_without_checkpoint_is_refused(config, tmp_path, exists):
    folder = tmp_path / "run"
    if exists:
        folder.mkdir()
    with pytest.raises(UserError, match=r"config\.model\.checkpoint = '.*run'"):
        load_model(changed(config, checkpoint=str(folder)), tmp_path)


def test_a_damaged_checkpoint_is_refused(config, variables, tmp_path):
    save(tmp_path, config, variables)
    for path in (tmp_path / FOLDER / "3" / "variables").rglob("*"):
        if path.is_file():
            path.unlink()
    with pytest.raises(UserError, match=r"config\.model\.checkpoint"):
        load_model(config, tmp_path)


def test_training_starts_from_a_checkpoint(config, variables, saved):
    fresh = jax.tree.map(np.zeros_like, variables)
    assert start_from_checkpoint(fresh, config) is fresh
    assert_same(
        start_from_checkpoint(fresh, changed(config, checkpoint=str(saved))), times(2, variables)
    )


def test_a_local_head_of_another_kind_starts_fresh_where_it_alone_is_trained(
    config, variables, saved
):
    other = changed(config, checkpoint=str(saved), dim_reduction="none", attention_dim=3)
    fresh = random_variables(build(other.model), seed=3)
    for require in (lambda config: start_from_checkpoint(fresh, config), require_start):
        with pytest.raises(UserError, match="dim_reduction"):
            require(other)
    with other.unlocked():
        other.train.heads = "local"
    require_start(other)
    started = traverse_util.flatten_dict(start_from_checkpoint(fresh, other))
    fresh, stored = (traverse_util.flatten_dict(tree) for tree in (fresh, times(2, variables)))
    assert started.keys() == fresh.keys()
    for path, value in started.items():
        is_local = path[1] in ("attend", "local_classifier")
        np.testing.assert_array_equal(value, (fresh if is_local else stored)[path])
    with pytest.raises(UserError, match=r"global_dim"):
        require_start(changed(other, global_dim=5))


def test_classifiers_of_other_classes_start_fresh(config, variables, saved):
    other = changed(config, num_classes=7, checkpoint=str(saved))
    fresh = random_variables(build(other.model), seed=3)
    started = traverse_util.flatten_dict(start_from_checkpoint(fresh, other))
    fresh, stored = (traverse_util.flatten_dict(tree) for tree in (fresh, times(2, variables)))
    for path, value in started.items():
        is_classifier = path[1] in ("global_classifier", "local_classifier")
        np.testing.assert_array_equal(value, (fresh if is_classifier else stored)[path])


@pytest.mark.parametrize(
    "error", [MemoryError(), RuntimeError("can't start new thread"), RuntimeError("Out of memory")]
)
def test_a_shortage_is_not_called_damage(config, saved, monkeypatch, error):
    def fail(*_, **__):
        raise error

    monkeypatch.setattr(ocp.CheckpointManager, "restore", fail)
    with pytest.raises(UserError, match=r"(memory|threads) = ") as caught:
        load_model(config, saved)
    assert "damaged" not in str(caught.value)


def test_a_checkpoint_that_training_replaces_is_read_again(
    config, variables, tmp_path, monkeypatch
):
    restore, replaced = ocp.CheckpointManager.restore, []
    save(tmp_path, config, variables, (2,))

    def late(manager, step, args):
        """Training replaces the checkpoint between the two reads of the first try."""
        if len(replaced) == 1:
            save(tmp_path, config, variables, (7,))
            shutil.rmtree(tmp_path / FOLDER / "2")
        replaced.append(step)
        return restore(manager, step, args=args)

    monkeypatch.setattr(ocp.CheckpointManager, "restore", late)
    assert_same(load_model(config, tmp_path)[1], times(7, variables))
    assert replaced == [2, 2, 7, 7]


def test_random_weights_are_not_silent(config, variables, saved, tmp_path, caplog):
    load_model(config, saved)
    assert not caplog.records
    load_model(config, tmp_path)
    (record,) = caplog.records
    assert record.levelname == "WARNING"
    assert str(tmp_path) in record.getMessage()
