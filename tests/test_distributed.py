import shutil

import jax
import numpy as np
import pytest
from flax import traverse_util

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.training.trained_network import load_model
from tests.photographs import make_folder
from tests.tiny import training_config
from tests.training import programs

STEPS = 20


@pytest.fixture
def joined(monkeypatch):
    """Arguments with which processes were joined."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda *args: calls.append(args))
    return calls


def variables_of(address="host:1", count="2", number="1"):
    return {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": count,
        "JAX_PROCESS_ID": number,
    }


def test_without_flags_and_variables_there_is_one_process(joined):
    assert not distributed.initialize(environment={})
    assert not distributed.initialize("host:1", 1, 0, {})
    assert joined == []
    assert distributed.is_first()
    assert distributed.shard() == (0, 1)
    with distributed.first_before_others("test"):
        distributed.wait_for_all("test")


def test_flags_and_environment_variables_start_jax_distributed(joined):
    assert distributed.initialize("host:1", 2, 0, {})
    assert distributed.initialize(environment=variables_of(number="0"))
    assert distributed.initialize(process_id=0, environment=variables_of())
    assert joined == [("host:1", 2, 0)] * 3


@pytest.mark.parametrize(
    ("variables", "rule"),
    [
        ({"JAX_PROCESS_ID": "0"}, "--coordinator = None: must be given .*JAX_COORDINATOR_ADDRESS"),
        (variables_of(count=""), "--num_processes = '': must be given"),
        (variables_of(count="two"), "--num_processes = 'two': must be a whole number"),
        (variables_of(number="2"), "--process_id = 2: must be from 0 to below --num_processes=2"),
        (variables_of(number="-1"), "--process_id = -1"),
    ],
)
def test_incomplete_or_invalid_arguments_are_refused(joined, variables, rule):
    with pytest.raises(UserError, match=rule):
        distributed.initialize(environment=variables)
    assert joined == []


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(make_folder(tmp_path_factory.mktemp("photographs")))
    config = config.copy_and_resolve_references().unlock()
    config.train.steps, config.train.batch_size, config.train.batch_norm = STEPS, 16, "sync"
    config.train.checkpoint_every = config.train.eval_every = STEPS // 2
    config.train.learning_rate = 0.001
    config.train.tensorboard = False
    return config.lock()


def trained(config, workdir):
    return traverse_util.flatten_dict(load_model(config, workdir)[1], sep="/")


def difference(found, expected):
    """Largest distance of a tensor from the expected one, relative to its norm."""
    distances = {
        name: np.linalg.norm(found[name] - value) / max(np.linalg.norm(value), 1e-3)
        for name, value in expected.items()
    }
    return max((distance, name) for name, distance in distances.items())


@pytest.mark.slow
def test_devices_and_processes_learn_the_same(config, tmp_path):
    programs.finish(programs.start(config, tmp_path / "one", devices=1))
    programs.finish(programs.start(config, tmp_path / "eight", devices=8))
    outputs = programs.finish(*programs.start_processes(config, tmp_path / "two", 2, 4))
    one = trained(config, tmp_path / "one")
    for name in ("eight", "two"):
        distance, tensor = difference(trained(config, tmp_path / name), one)
        assert distance < 1e-5, (name, tensor)
    first = (tmp_path / "one" / "logs" / "metrics.jsonl").read_text().splitlines()
    shared = (tmp_path / "two" / "logs" / "metrics.jsonl").read_text().splitlines()
    assert len(first) == len(shared)  # one process writes
    assert "validation_loss" in outputs[0]
    assert "step" not in outputs[1]


@pytest.mark.slow
def test_a_run_resumes_with_other_devices_and_processes(config, tmp_path):
    programs.finish(programs.start(config, tmp_path / "one", devices=1))
    workdir = tmp_path / "changing"
    half = config.copy_and_resolve_references().unlock()
    half.train.best_metric = ""
    programs.finish(*programs.start_processes(half, workdir, 2, 4))
    shutil.rmtree(workdir / "checkpoints" / str(STEPS))
    output = programs.finish(programs.start(half, workdir, devices=2))[0]
    assert f"resumed at step {STEPS // 2}" in output
    distance, tensor = difference(trained(config, workdir), trained(config, tmp_path / "one"))
    assert distance < 1e-5, tensor
