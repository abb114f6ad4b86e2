import json
import os
import shutil
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
from flax import traverse_util

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.training.trained_network import load_model
from tests.photographs import make_folder, make_revisited
from tests.test_clusters import SLURM
from tests.tiny import retrieval_config, training_config
from tests.training import programs

STEPS = 20


@pytest.fixture
def met(monkeypatch):
    """Arguments with which processes were joined."""
    calls = []
    monkeypatch.setattr(jax.distributed, "initialize", lambda **given: calls.append(given))
    monkeypatch.setattr(distributed, "shard", lambda: (0, 2))
    return calls


def variables_of(address="host:1", count="2", number="1"):
    return {
        "JAX_COORDINATOR_ADDRESS": address,
        "JAX_NUM_PROCESSES": count,
        "JAX_PROCESS_ID": number,
    }


def test_without_flags_and_variables_there_is_one_process(monkeypatch):
    monkeypatch.delattr(jax.distributed, "initialize")
    assert not distributed.initialize(environment={})
    assert not distributed.initialize("host:1", 1, 0, environment={})
    assert not distributed.initialize(cluster="none", environment=SLURM)
    assert not distributed.initialize(environment={**SLURM, "DELG_CLUSTER": "none"})
    assert distributed.is_first()
    assert distributed.shard() == (0, 1)
    with distributed.first_before_others("test"):
        distributed.wait_for_all("test")
    assert distributed.gather("test", 3) == [3]


def test_flags_and_environment_variables_start_jax_distributed(met):
    assert distributed.initialize("host:1", 2, 0, environment={})
    assert distributed.initialize(environment=variables_of(number="0"))
    assert distributed.initialize(process_id=0, environment={**SLURM, **variables_of()})
    given = {"coordinator_address": "host:1", "num_processes": 2, "process_id": 0}
    given |= {"local_device_ids": [], "cluster_detection_method": "deactivate"}
    assert met == [given] * 3
    shared = {**SLURM, "SLURM_STEP_TASKS_PER_NODE": "2(x2)", "SLURM_LOCALID": "1"}
    assert distributed.initialize(environment={**shared, **variables_of()})
    assert met[-1]["local_device_ids"] == [1]


def test_a_cluster_starts_jax_distributed(met):
    assert distributed.initialize(environment=SLURM)
    assert distributed.initialize("host:1", environment=SLURM)
    assert [call.get("coordinator_address") for call in met] == [None, "host:1"]
    assert [call["process_id"] for call in met] == [2, 2]


def test_a_single_task_of_a_cluster_says_so(met, caplog):
    caplog.set_level("INFO", "delg_jax")
    assert not distributed.initialize(environment={**SLURM, "SLURM_STEP_NUM_TASKS": "1"})
    assert not met
    assert "Slurm job 17 has 4 tasks" in caplog.text


def test_processes_that_do_not_meet_are_one_line(monkeypatch):
    def fail(**_):
        raise RuntimeError("DEADLINE_EXCEEDED: Barrier timed out\nmore")

    monkeypatch.setattr(jax.distributed, "initialize", fail)
    with pytest.raises(UserError, match="Slurm job 17, process 2 of 4.*DEADLINE.*timed out"):
        distributed.initialize(environment=SLURM)


@pytest.mark.parametrize(
    ("variables", "names"),
    [
        ({"JAX_PROCESS_ID": "0"}, "--coordinator = None: .*JAX_COORDINATOR_ADDRESS"),
        ({"JAX_COORDINATOR_ADDRESS": "host:1"}, "--num_processes = None: "),
        ({**SLURM, "JAX_PROCESS_ID": "0"}, "--coordinator = None: "),
        (variables_of(count=""), "--num_processes = None: "),
        (variables_of(count="two"), "--num_processes = 'two': "),
        (variables_of(number="2"), "--process_id = 2: .*--num_processes=2"),
        (variables_of(number="-1"), "--process_id = -1: "),
        ({"DELG_CLUSTER": "pbs"}, "--cluster = 'pbs': "),
    ],
)
def test_incomplete_or_invalid_arguments_are_refused(met, variables, names):
    with pytest.raises(UserError, match=names):
        distributed.initialize(environment=variables)
    assert met == []


MEETING = """
import os, signal, sys, threading, time
from jax.experimental import multihost_utils
from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.training.interruption import StopRequest

number, case = int(sys.argv[1]), sys.argv[3]
distributed._LINE_SECONDS = 1.5
with distributed.joined(sys.argv[2], 2, number, ends_on_sigterm="is asked" not in case):
    if case == "works":
        with distributed.first_before_others("data"):
            time.sleep(0 if number else 4)
            print(number, "opened", time.time(), flush=True)
        assert distributed.agree(True, "all")
        assert not distributed.agree(number == 0, "one")
        for turn in range(3):
            assert distributed.gather("numbers", [number, turn]) == [[0, turn], [1, turn]]
        with distributed.shared_out("work", range(5), lambda: print("finished")) as mine:
            assert list(mine) == list(range(number, 5, 2))
        kept = distributed._client().key_value_dir_get("delg/")
        assert len({key.split("/")[1] for key, _ in kept}) <= 2, kept
    if case == "first fails":
        with distributed.first_before_others("data"):
            time.sleep(2)
            raise UserError("config.data.root", "gone", "must be an existing folder")
    if case == "first stops":
        with distributed.first_before_others("data"):
            raise SystemExit(7)
    if case.endswith(" is asked to stop"):
        if case.startswith("first") == (number == 0):
            threading.Timer(2, os.kill, (os.getpid(), signal.SIGTERM)).start()
        with StopRequest(75) as stop, stop.at_once(), distributed.first_before_others("data"):
            time.sleep(600)  # prepares data
    if case == "second fails":
        if number:
            raise ValueError("out of luck")
        multihost_utils.sync_global_devices("never")
    if case == "second is terminated":
        if number:
            os.kill(os.getpid(), signal.SIGTERM)
        time.sleep(60)
    if case == "names differ":
        distributed.wait_for_all(f"name {number}")
"""


def meet(case):
    """Exit status and output of two processes."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    environment = {**os.environ, "JAX_PLATFORMS": "cpu", "XLA_FLAGS": ""}
    both = [
        subprocess.Popen(
            [sys.executable, "-c", MEETING, str(number), address, case],
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            env=environment,
            cwd=programs.ROOT,
        )
        for number in range(2)
    ]
    outputs = [process.communicate(timeout=120)[0] for process in both]
    return [process.returncode for process in both], outputs


@pytest.mark.slow
def test_two_processes_wait_for_each_other():
    status, outputs = meet("works")
    assert status == [0, 0], outputs
    times = [float(output.split("opened")[1].split()[0]) for output in outputs]
    assert times[0] < times[1]
    assert "waiting for process 0: data (" in outputs[1]
    assert outputs[0].count("finished") == 1
    assert "finished" not in outputs[1]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("case", "expected", "text"),
    [
        ("first fails", [1, 1], "config.data.root = 'gone': "),
        ("first stops", [7, 7], ""),
        ("first is asked to stop", [75, 75], ""),
        ("second is asked to stop", [75, 75], ""),
        ("second fails", [2, 1], "out of luck"),
        ("second is terminated", [2, 143], ""),
        ("names differ", [1, 1], "'name "),
    ],
)
def test_processes_end_together(case, expected, text):
    status, outputs = meet(case)
    assert status == expected, outputs
    assert text in outputs[0]
    assert text in outputs[1]
    assert "Check failure stack trace" not in "".join(outputs)


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


def require_same(found, expected):
    """Parameters equal up to rounding: all together to 1e-6, each tensor to 1e-3 of its norm.

    Biases start at 0 and are still tiny, so that rounding is a larger share of them.
    """
    squares = np.zeros(2)
    for name, value in expected.items():
        distance = np.linalg.norm(found[name] - value)
        assert distance <= 1e-3 * max(np.linalg.norm(value), 1e-3), name
        squares += distance**2, np.linalg.norm(value) ** 2
    assert np.sqrt(squares[0] / squares[1]) < 1e-6


@pytest.mark.slow
def test_devices_and_processes_learn_the_same(config, tmp_path):
    programs.finish(programs.start(config, tmp_path / "one", devices=1))
    programs.finish(programs.start(config, tmp_path / "eight", devices=8))
    outputs = programs.finish(*programs.start_processes(config, tmp_path / "two", 2, 4))
    one = trained(config, tmp_path / "one")
    for name in ("eight", "two"):
        require_same(trained(config, tmp_path / name), one)
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
    require_same(trained(config, workdir), trained(config, tmp_path / "one"))


@pytest.mark.slow
def test_two_processes_evaluate_and_index_as_one(tmp_path):
    config = retrieval_config(make_revisited(tmp_path / "photographs", places=2))
    config = config.copy_and_resolve_references().unlock()
    config.extract.local_scales = config.extract.global_scales = (1.0,)
    config.eval.methods = ("global+diffusion", "local+mds")
    config.search.engine = "ivf"
    config.search.ivf.count = 2
    programs.finish(programs.start(config, tmp_path / "one", 1, verb="evaluate"))
    two = tmp_path / "two"
    outputs = programs.finish(*programs.start_processes(config, two, 2, 1, verb="evaluate"))
    assert "global+diffusion" in outputs[0]
    assert "global+diffusion" not in outputs[1]
    metrics = [json.loads((tmp_path / run / "metrics.json").read_text()) for run in ("one", "two")]
    assert metrics[0]["average_precisions"] == metrics[1]["average_precisions"]
    outputs = programs.finish(*programs.start_processes(config, two, 2, 1, verb="index"))
    assert "index of the engine ivf" in outputs[0]
    assert "index" not in outputs[1]
