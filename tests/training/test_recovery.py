"""Runs that are killed or asked to stop, as programs of their own."""

import json
import os
import signal
import time

import jax
import numpy as np
import pytest

from delg_jax.training.trained_network import load_model
from tests.photographs import make_folder
from tests.tiny import training_config
from tests.training import programs

STEPS = 60
DEADLINE = 300  # seconds that a program may take to reach a step


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    config = training_config(make_folder(tmp_path_factory.mktemp("photographs")))
    config = config.copy_and_resolve_references().unlock()
    config.train.steps, config.train.checkpoint_every, config.train.eval_every = STEPS, 4, 30
    config.train.keep_checkpoints = 2
    config.train.tensorboard = False
    return config.lock()


def last_step(workdir):
    """Step of the last whole record, 0 before the first."""
    path = workdir / "logs" / "metrics.jsonl"
    lines = path.read_text().splitlines() if path.is_file() else []
    return max((json.loads(line)["step"] for line in lines if line.endswith("}")), default=0)


def send(program, number, workdir, step):
    """Sends a signal to a program and its workers once the run has passed a step."""
    deadline = time.monotonic() + DEADLINE
    while last_step(workdir) < step:
        assert program.poll() is None, program.stdout.read()
        assert time.monotonic() < deadline
        time.sleep(0.02)
    os.killpg(program.pid, number)
    return program.communicate(timeout=DEADLINE)[0]


def assert_learned_the_same(config, found, expected):
    one, other = (load_model(config, workdir)[1] for workdir in (found, expected))
    jax.tree.map(np.testing.assert_array_equal, one, other)


@pytest.mark.slow
def test_a_run_that_is_killed_three_times_learns_the_same_bits(config, tmp_path):
    programs.finish(programs.start(config, tmp_path / "whole", devices=2))
    workdir = tmp_path / "killed"
    stops = np.random.default_rng(0).integers([3, 20, 40], [18, 36, 56])
    for step in stops:
        program = programs.start(config, workdir, devices=2)
        send(program, signal.SIGKILL, workdir, int(step))
        assert program.returncode == -signal.SIGKILL
        assert not (workdir / "checkpoints" / str(STEPS)).exists()
    programs.finish(programs.start(config, workdir, devices=2))
    assert_learned_the_same(config, workdir, tmp_path / "whole")
    records = (workdir / "logs" / "metrics.jsonl").read_text().splitlines()
    steps = [json.loads(line)["step"] for line in records if '"loss"' in line]
    assert steps == list(range(1, STEPS + 1))


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_saves_a_checkpoint_and_the_status_says_so(config, tmp_path, number):
    config = config.copy_and_resolve_references().unlock()
    config.train.checkpoint_every, config.data.workers = STEPS, 1
    programs.finish(programs.start(config, tmp_path / "whole", devices=2))
    workdir = tmp_path / "stopped"
    program = programs.start(config, workdir, devices=2)
    output = send(program, number, workdir, 7)
    assert program.returncode == 75, output
    (saved,) = (int(p.name) for p in (workdir / "checkpoints").iterdir() if p.name.isdigit())
    assert 7 <= saved < STEPS
    assert f"stopped at step {saved}" in output
    assert not (workdir / "train_metrics.json").exists()
    resumed = programs.finish(programs.start(config, workdir, 2))[0]
    assert f"resumed at step {saved}" in resumed
    for said in (output, resumed):  # memory that is shared with workers is freed
        assert "leaked" not in said
    assert_learned_the_same(config, workdir, tmp_path / "whole")


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_processes_stop_together(config, tmp_path, number):
    config = config.copy_and_resolve_references().unlock()
    config.train.steps, config.train.checkpoint_every = 2000, 2000
    both = programs.start_processes(config, tmp_path / "run", processes=2, devices=1)
    outputs = [send(both[1], number, tmp_path / "run", 7), both[0].communicate()[0]]
    assert [program.returncode for program in both] == [75, 75], outputs
    (saved,) = (p.name for p in (tmp_path / "run" / "checkpoints").iterdir() if p.name.isdigit())
    assert f"stopped at step {saved}" in outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
def test_a_signal_ends_a_validation_between_two_batches(tmp_path, processes):
    root = make_folder(tmp_path / "photographs", validation=100)
    config = training_config(root).copy_and_resolve_references().unlock()
    config.train.steps, config.train.eval_every, config.train.checkpoint_every = 8, 4, 100
    config.train.tensorboard = False
    workdir = tmp_path / "run"
    if processes == 1:
        both = [programs.start(config, workdir, devices=1)]
    else:
        both = programs.start_processes(config, workdir, processes, devices=1)
    outputs = [send(both[-1], signal.SIGTERM, workdir, 4)]
    outputs += [program.communicate()[0] for program in both[:-1]]
    assert {program.returncode for program in both} == {75}, outputs
    assert "stopped at step 4" in outputs[-1]
    assert (workdir / "checkpoints" / "4").is_dir()
    assert not validated(workdir)
    programs.finish(programs.start(config, workdir, devices=2))
    assert validated(workdir) == [4, 8]


def validated(workdir):
    lines = (workdir / "logs" / "metrics.jsonl").read_text().splitlines()
    return [json.loads(line)["step"] for line in lines if "validation_loss" in line]


@pytest.mark.slow
def test_each_process_splits_the_classes_over_its_devices(config, tmp_path):
    """Three devices of a process hold two of the four classes each, or none."""
    config = config.copy_and_resolve_references().unlock()
    config.train.steps, config.train.eval_every, config.train.batch_size = 6, 6, 12
    config.train.batch_norm, config.train.weight_decay = "frozen", 1e-3
    programs.finish(programs.start(config, tmp_path / "whole", devices=6))
    flags = ("--config.train.shard_classifier=True",)
    both = programs.start_processes(config, tmp_path / "split", 2, 3, flags)
    programs.finish(*both)
    (_, found), (_, expected) = (load_model(config, tmp_path / n) for n in ("split", "whole"))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), found, expected)
    assert validated(tmp_path / "split") == validated(tmp_path / "whole") == [6]
