import copy
import json
from pathlib import Path

import jax
import numpy as np
import pytest

from delg_jax import json_files
from delg_jax.errors import UserError
from delg_jax.models.variables import digest
from delg_jax.training.checkpoints import (
    FOLDER,
    Checkpoints,
    explain_read_errors,
    require_intact,
)
from delg_jax.training.trained_network import load_model
from tests.flips import flips
from tests.training.saved_runs import assert_same, save, save_with_metrics, state_of, times

VARIABLES = {
    "params": {"conv": {"kernel": np.arange(6, dtype=np.float32).reshape(2, 3)}},
    "batch_stats": {"norm": {"mean": np.ones(3, np.float32)}},
}
META = {"digest": digest(VARIABLES)}


def test_the_latest_state_comes_back_bit_by_bit(config, variables, saved):
    with Checkpoints(saved / FOLDER, config.model, 10) as checkpoints:
        assert checkpoints.latest() == 2
        like = state_of(jax.tree.map(np.zeros_like, variables), config)
        state, validated = checkpoints.restore(like)
    assert validated
    assert int(state.step) == 2
    expected = state_of(times(2, variables), config, 2)
    assert_same(state, expected)


def test_only_the_latest_are_kept(config, variables, tmp_path):
    save(tmp_path, config, variables, steps=(1, 2, 3), keep=2)
    kept = sorted(p.name for p in (tmp_path / FOLDER).iterdir() if p.name.isdigit())
    assert kept == ["2", "3"]


@pytest.mark.parametrize(("name", "kept"), [("accuracy", [2, 5]), ("a_loss", [3, 5]), ("", [5])])
def test_the_best_is_kept_beside_the_latest(config, variables, tmp_path, name, kept):
    values = {1: 0.3, 2: 0.7, 3: 0.1, 4: None, 5: 0.5}
    records = {s: {} if v is None else {name or "x": v} for s, v in values.items()}
    assert save_with_metrics(tmp_path, config, variables, records, best_metric=name) == kept


def test_the_best_outlives_a_run_that_was_resumed(config, variables, tmp_path):
    options = {"best_metric": "accuracy"}
    save_with_metrics(tmp_path, config, variables, {1: {"accuracy": 0.9}, 2: {}}, **options)
    later = {3: {"accuracy": 0.5}, 4: {}}
    assert save_with_metrics(tmp_path, config, variables, later, **options) == [1, 4]


def test_a_step_is_saved_once(config, variables, tmp_path):
    save(tmp_path, config, variables, steps=(3,))
    with Checkpoints(tmp_path / FOLDER, config.model, 10) as checkpoints:
        checkpoints.save(state_of(times(2, variables), config, 3))
    assert_same(load_model(config, tmp_path)[1], times(3, variables))


def changed_variables(value):
    variables = copy.deepcopy(VARIABLES)
    variables["params"]["conv"]["kernel"][1, 2] = value
    return variables


def test_saved_variables_are_intact():
    require_intact(VARIABLES, META, Path("run"))


def test_one_changed_number_is_damage():
    with pytest.raises(UserError, match=r"config\.model\.checkpoint = 'run': .*damaged"):
        require_intact(changed_variables(-5.0), META, Path("run"))


def test_checkpoints_of_older_versions_have_no_digest():
    require_intact(changed_variables(-5.0), {"input": ""}, Path("run"))


# TensorStore ends reads of which another one has failed
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
@pytest.mark.slow
@pytest.mark.parametrize("count", [10, 400])
def test_flipped_bits_never_give_other_numbers(config, variables, tmp_path, count):
    save(tmp_path, config, variables)
    saved = state_of(times(3, variables), config, 3)
    files = sorted(path for path in (tmp_path / FOLDER / "3").rglob("*") if path.is_file())
    sizes = np.array([path.stat().st_size for path in files])
    per_file = np.random.default_rng(0).multinomial(count, sizes / sizes.sum())
    refused = 0
    for path, number in zip(files, np.maximum(per_file, 1), strict=True):
        for _ in flips(path, int(number)):
            try:
                with Checkpoints(tmp_path / FOLDER, config.model, 10) as checkpoints:
                    found = checkpoints.restore(saved)
                assert found.validated
                assert_same(found.state, saved)
            except UserError:
                refused += 1
    assert refused > count // 3


def test_the_optimizer_state_and_the_description_are_guarded_too(config, variables, tmp_path):
    save(tmp_path, config, variables)
    path = tmp_path / FOLDER / "3" / "meta" / "metadata"
    meta = json.loads(path.read_text())
    other_optimizer = json_files.signed({**meta, "optimizer_digest": "0" * 64})
    for content in (other_optimizer, {**meta, "validated": False}):
        path.write_text(json.dumps(content))
        with (
            Checkpoints(tmp_path / FOLDER, config.model, 10) as checkpoints,
            pytest.raises(UserError, match=r"config\.model\.checkpoint = .*damaged"),
        ):
            checkpoints.restore(state_of(variables, config))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_the_tensor_that_is_not_finite_is_named(value):
    variables = changed_variables(value)
    with pytest.raises(UserError, match="finite.* params/conv/kernel"):
        require_intact(variables, {"digest": digest(variables)}, Path("run"))


@pytest.mark.parametrize(
    "error", [ValueError("a\nb"), KeyError("x"), RuntimeError(), IndexError(3)]
)
def test_any_read_error_becomes_one_line(error):
    block = explain_read_errors(Path("run"))
    with pytest.raises(UserError, match="config.model.checkpoint = 'run'") as caught, block:
        raise error
    assert "\n" not in str(caught.value)


def test_a_user_error_is_passed_through():
    mistake = UserError("config.model.checkpoint", "x", "holds another network")
    with pytest.raises(UserError) as caught, explain_read_errors(Path("run")):
        raise mistake
    assert caught.value is mistake
