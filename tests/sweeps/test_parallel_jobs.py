import dataclasses
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from configs import default
from delg_jax.errors import UserError
from delg_jax.sweeps import parallel_jobs, run_record, sweep
from delg_jax.sweeps.run_record import BEGUN, FAILED, FINISHED, Record
from delg_jax.sweeps.sweep import Result, Run

CONFIG = default.get_config().lock()


def make_runs(count):
    return [Run(f"s{seed}", {"seed": seed}, ("train",), "all") for seed in range(count)]


class Commands:
    """Commands that leave a record of their run, as the program does, in an instant."""

    def __init__(self, root):
        self.root = root

    def record(self, one, status=FINISHED, error=""):
        config = CONFIG.copy_and_resolve_references()
        config.seed = one.overrides["seed"]
        metrics = {"train": {"validation_loss": float(config.seed)}}
        record = Record.begin(config, one.verbs)
        return dataclasses.replace(record, status=status, metrics=metrics, error=error)

    def of(self, one, before="", after="", **fields):
        self.record(one, **fields).write(self.root / "ready" / one.name)
        copy = f"cp {self.root}/ready/{one.name}/run.json {self.root}/{one.name}/"
        return ["sh", "-c", "; ".join(filter(None, (before, copy, after)))]


@pytest.fixture
def commands(tmp_path):
    return Commands(tmp_path)


def expected(one, error=""):
    return Result(one, {"train": {"validation_loss": float(one.overrides["seed"])}}, error)


@pytest.mark.parametrize("jobs", [1, 2, 9])
def test_runs_are_done_by_their_commands(commands, tmp_path, jobs):
    runs = make_runs(4)
    words = {one.name: commands.of(one, before=f"echo said {one.name}") for one in runs}
    results = parallel_jobs.run(CONFIG, runs, tmp_path, words, jobs)
    assert results == [expected(one) for one in runs]
    for one in runs:
        assert (tmp_path / one.name / "run.log").read_text() == f"said {one.name}\n"
    content = json.loads((tmp_path / "sweep.json").read_text())
    assert [entry["run"]["name"] for entry in content["runs"]] == [one.name for one in runs]
    assert parallel_jobs.run(CONFIG, runs, tmp_path, {}, jobs) == results  # nothing is left to do


def test_as_many_run_at_once_as_asked_for(commands, tmp_path):
    # Each waits until the other is there, which would never end if they ran in turn.
    meet = f"touch {tmp_path}/here$$; while [ $(ls {tmp_path} | grep -c here) -lt 2 ]; do :; done"
    runs = make_runs(2)
    words = {one.name: commands.of(one, before=meet) for one in runs}
    assert parallel_jobs.run(CONFIG, runs, tmp_path, words, 2) == [expected(one) for one in runs]


def test_jobs_take_gpus_in_turn(commands, tmp_path):
    say = "echo $CUDA_VISIBLE_DEVICES; sleep 0.5"
    runs = make_runs(3)
    words = {one.name: commands.of(one, before=say) for one in runs}
    parallel_jobs.run(CONFIG, runs, tmp_path, words, 3, gpus=("4", "6"))
    said = [(tmp_path / one.name / "run.log").read_text() for one in runs]
    assert said == ["4\n", "6\n", "4\n"]


def test_a_run_that_fails_or_is_killed_does_not_stop_the_others(commands, tmp_path):
    runs = make_runs(5)
    words = {
        "s0": commands.of(runs[0], status=FAILED, error="no luck", after="exit 2"),
        "s1": commands.of(runs[1], status=BEGUN, after="kill -9 $$"),
        "s2": ["sh", "-c", "echo bad; exit 3"],
        "s3": ["true"],
        "s4": commands.of(runs[4]),
    }
    results = parallel_jobs.run(CONFIG, runs, tmp_path, words, 2)
    assert results[0] == expected(runs[0], "no luck")
    assert results[1].metrics == expected(runs[1]).metrics
    assert "SIGKILL" in results[1].error
    for number, status in ((2, "status 3"), (3, "status 0")):
        assert status in results[number].error
        assert results[number].error.endswith(f" {tmp_path / f's{number}' / 'run.log'}")
    assert results[4] == expected(runs[4])
    assert sweep.gather(CONFIG, runs, tmp_path) == (results, [])
    words = {one.name: commands.of(one) for one in runs[:4]}  # s4 is not done again
    assert parallel_jobs.run(CONFIG, runs, tmp_path, words, 2) == [expected(one) for one in runs]


def test_a_record_of_another_configuration_is_no_success(commands, tmp_path):
    (one,) = make_runs(1)
    other = Run("s0", {"seed": 5}, ("train",), "all")
    (result,) = parallel_jobs.run(CONFIG, [one], tmp_path, {"s0": commands.of(other)}, 1)
    assert "status 0" in result.error
    with pytest.raises(UserError, match="two runs"):
        parallel_jobs.run(CONFIG, [one, one], tmp_path, {}, 1)


def wait_for(condition):
    deadline = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def is_alive(pid):
    """Whether a process is there and not only waiting for its parent to notice its end."""
    state = subprocess.run(["ps", "-o", "stat=", "-p", str(pid)], capture_output=True, text=True)
    return state.stdout.strip()[:1] not in ("", "Z")


def test_an_interruption_ends_the_processes(monkeypatch, tmp_path):
    runs = make_runs(2)
    stubborn = "trap '' TERM; echo $$; while :; do sleep 0.1; done"
    words = {"s0": ["sh", "-c", "echo $$; exec sleep 600"], "s1": ["sh", "-c", stubborn]}
    logs = [tmp_path / name / "run.log" for name in words]

    def interrupt(_):
        if all(log.is_file() and log.read_text() for log in logs):
            os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(parallel_jobs, "_GRACE_SECONDS", 0.5)
    monkeypatch.setattr(parallel_jobs.time, "sleep", interrupt)
    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(KeyboardInterrupt), parallel_jobs.interruptible():
        parallel_jobs.run(CONFIG, runs, tmp_path, words, 2)
    assert signal.getsignal(signal.SIGTERM) == before
    assert not any(is_alive(int(log.read_text())) for log in logs)
    assert all(run_record.read(tmp_path / one.name) is None for one in runs)


_RUN = """
import sys, time
from delg_jax.sweeps.parallel_jobs import interruptible
try:
    with interruptible():
        open(sys.argv[1], "w").close()
        time.sleep(600)
except KeyboardInterrupt:
    open(sys.argv[2], "w").close()
"""


def test_a_run_ends_when_the_sweep_was_killed(tmp_path):
    begun, ended = tmp_path / "begun", tmp_path / "ended"
    # The shell stands for the sweep: it tells its process id to the run, which outlives it.
    script = 'export DELG_SWEEP_PROCESS=$$; "$0" -c "$1" "$2" "$3" & wait'
    words = ["sh", "-c", script, sys.executable, _RUN, str(begun), str(ended)]
    with subprocess.Popen(words, start_new_session=True) as parent:
        wait_for(begun.exists)
        assert not ended.exists()
        parent.kill()
    wait_for(ended.exists)


ODD = 'it\'s; $(rm -rf) "x" *'


def test_a_line_is_read_back_as_the_words():
    words = ["delg", "sweep", "--config.extract.local_scales=(0.5, 1.0)", f"--config.x={ODD}"]
    (line, _) = parallel_jobs.lines({"a": words, "b": ["delg"]})
    assert shlex.split(line) == words


@pytest.mark.parametrize("odd", ["plain", ODD])
def test_each_element_of_the_array_does_its_run(tmp_path, odd):
    folder = tmp_path / odd
    folder.mkdir()
    commands = {
        "first": ["sh", "-c", 'echo "$0" here; pwd; echo wrong >&2', odd],
        "second": ["sh", "-c", "exit 7"],
    }
    text = parallel_jobs.slurm_script(commands, ["delg", "--gather"], f"w/{odd}", folder)
    script = tmp_path / "script"
    script.write_text(text)
    subprocess.run(["bash", "-n", str(script)], check=True)
    statuses = [
        subprocess.run(
            ["bash", str(script)], cwd="/", env={"PATH": "/usr/bin:/bin", **environment}
        ).returncode
        for environment in ({"SLURM_ARRAY_TASK_ID": str(n)} for n in (0, 1))
    ]
    assert statuses == [0, 7]
    log = (folder / "w" / odd / "first" / "run.log").read_text()
    assert log.splitlines() == [f"{odd} here", str(folder), "wrong"]


def test_the_script_tells_slurm_what_it_is():
    commands = {name: ["delg", f"--only={name}"] for name in "abc"}
    text = parallel_jobs.slurm_script(commands, ["delg", "--gather"], "w", Path("/x"), jobs=2)
    assert text.startswith("#!/bin/bash\n#SBATCH ")
    assert "#SBATCH --array=0-2%2\n" in text
    assert "#   delg --gather\n" in text
    assert "--array=0-2\n" in parallel_jobs.slurm_script(commands, [], "w", Path("/x"))


def test_without_slurm_the_script_ends_in_an_error(tmp_path):
    script = tmp_path / "script"
    script.write_text(parallel_jobs.slurm_script({"a": ["true"]}, [], "w", tmp_path))
    ended = subprocess.run(["bash", str(script)], capture_output=True, text=True, env={})
    assert ended.returncode != 0
    assert "is set by sbatch" in ended.stderr
