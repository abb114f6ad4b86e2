import json
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from delg_jax.cli import sweep as verb
from delg_jax.cli.main import main
from delg_jax.sweeps import sweep
from tests.cli import sweep_program

ROOT = Path(__file__).parents[2]
CONFIG = f"--config={ROOT / 'configs' / 'quickstart.py'}:smoke"
RATES = "--sweep=train.learning_rate=1,2"


@pytest.fixture
def stubs(monkeypatch):
    """Verbs that take an instant."""
    monkeypatch.setattr(
        sweep, "VERBS", {"train": sweep_program.train, "evaluate": sweep_program.evaluate}
    )
    monkeypatch.setattr(sweep_program.time, "sleep", lambda _: None)


def call(folder, *arguments):
    return main(["sweep", CONFIG, f"--workdir={folder}", *arguments])


def calls(folder):
    """How often each run was begun."""
    return {path.parent.name: len(path.read_text().split()) for path in folder.glob("*/calls")}


def test_a_row_for_each_setting_is_printed(stubs, capsys, tmp_path):
    assert call(tmp_path, RATES, "--seeds=0,2", "--verbs=train") == 0
    out = capsys.readouterr().out
    *_, first, second = out.splitlines()
    assert "2.00 ± 1.41" in first
    assert "3.00 ± 1.41" in second
    assert (tmp_path / "sweep.md").read_text() == out
    assert len(json.loads((tmp_path / "sweep.json").read_text())["runs"]) == 4
    assert call(tmp_path, RATES, "--seeds=0,2", "--verbs=train") == 0
    assert capsys.readouterr().out == out
    assert set(calls(tmp_path).values()) == {1}


def test_the_status_says_that_a_run_failed(stubs, capsys, tmp_path):
    assert call(tmp_path, "--seeds=0,13") == 2
    output = capsys.readouterr()
    assert "1/2" in output.out
    assert "- failed: `seed=13`, config.seed = 13: brings bad luck" in output.out
    assert (tmp_path / "sweep.md").read_text() == output.out
    assert "1 of 2 runs" in output.err.splitlines()[-1]


def test_a_file_and_draws_make_a_sweep(stubs, capsys, tmp_path):
    file = tmp_path / "my sweep.json"
    file.write_text(json.dumps({"settings": [{"model.pooling": "gem", "train.steps": 3}]}))
    rate = "--sweep=train.learning_rate=loguniform(1e-4,1e-2)"
    arguments = [f"--sweep={file}", rate, "--draws=2", "--draw_seed=1", "--seeds=0"]
    assert call(tmp_path / "w", *arguments) == 0
    runs = json.loads((tmp_path / "w" / "sweep.json").read_text())["runs"]
    rates = [entry["run"]["overrides"]["train.learning_rate"] for entry in runs]
    assert rates[0] != rates[1]
    assert all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {entry["run"]["overrides"]["train.steps"] for entry in runs} == {3}


def test_printed_commands_are_the_sweep(stubs, capsys, tmp_path):
    folder = tmp_path / "it's here"
    changes = ["--config.extract.local_scales=()", "--config.data.root=a b", "--noconfig.data.flip"]
    arguments = ["--sweep=extract.global_scales=(0.5,1.0),(1.0,)", "--seeds=0,1", *changes]
    assert call(folder, *arguments, "--print_commands") == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert not folder.exists()
    for line in lines:
        words = shlex.split(line)
        assert words[: len(verb.PROGRAM)] == list(verb.PROGRAM)
        assert main(["sweep", *words[len(verb.PROGRAM) :]]) == 0
    assert set(calls(folder).values()) == {1}
    capsys.readouterr()
    assert call(folder, *arguments, "--gather") == 0
    gathered = capsys.readouterr().out
    assert call(tmp_path / "in turn", *arguments) == 0
    assert capsys.readouterr().out == gathered
    assert call(folder, *arguments, "--print_commands") == 0
    assert capsys.readouterr().out.strip() == ""


def test_a_script_for_slurm_does_the_runs(stubs, capsys, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(verb, "PROGRAM", ("echo", "sweep"))
    assert call("w", RATES, "--slurm=a/script", "--jobs=3") == 0
    assert capsys.readouterr().out == "a/script: 2 runs; submit it with sbatch\n"
    script = tmp_path / "a" / "script"
    subprocess.run(["bash", "-n", str(script)], check=True)
    text = script.read_text()
    assert "#SBATCH --array=0-1%3\n" in text
    environment = {"PATH": "/usr/bin:/bin", "SLURM_ARRAY_TASK_ID": "1"}
    subprocess.run(["bash", str(script)], cwd="/", env=environment, check=True)
    log = tmp_path / "w" / "train.learning_rate=2.0" / "run.log"
    words = shlex.split(log.read_text())
    assert words[0] == "sweep"
    assert main(words) == 0
    assert calls(tmp_path / "w") == {"train.learning_rate=2.0": 1}
    capsys.readouterr()
    (gather,) = (line for line in text.splitlines() if line.endswith(" --gather"))
    assert main(shlex.split(gather)[2:]) == 0
    out = capsys.readouterr().out
    assert "- missing: `train.learning_rate=1.0`, not started" in out
    assert "1 of 2 runs are in the table." in out
    assert call("w", RATES) == 0
    capsys.readouterr()
    assert call("w", RATES, "--slurm=a/none") == 0
    assert capsys.readouterr().out == "every run is finished\n"
    assert not (tmp_path / "a" / "none").exists()


def test_a_command_of_another_configuration_is_refused(stubs, capsys, tmp_path):
    assert call(tmp_path, "--seeds=0", "--print_commands") == 0
    words = shlex.split(capsys.readouterr().out)[len(verb.PROGRAM) :]
    assert main(["sweep", *words, "--config.train.steps=7"]) == 2
    assert "--digest = " in capsys.readouterr().err
    assert calls(tmp_path) == {}


def test_a_changed_configuration_is_refused_unless_it_may_overwrite(stubs, capsys, tmp_path):
    assert call(tmp_path, "--seeds=0") == 0
    capsys.readouterr()
    assert call(tmp_path, "--seeds=0", "--config.train.steps=7") == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert "config.train.steps: 4 -> 7" in err
    assert call(tmp_path, "--seeds=0", "--config.train.steps=7", "--overwrite") == 0
    assert calls(tmp_path) == {"seed=0": 2}


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        (["--sweep=train.step=1"], r"config\.train\.step = 1: .*train\.steps"),
        (["--grid=train.steps=1"], "--grid = 'train.steps=1': "),
        (["--sweep=train.steps=integers(1,5)"], "--draws"),  # others: tests/sweeps
        (["--seeds="], "seeds = "),
        (["--seeds=a"], "--seeds = 'a': "),
        (["--seeds=1", "--verbs="], "verbs = "),
        (["--seeds=1", "--verbs=dance"], "'dance': .*train, evaluate"),
        (["--seeds=1,2,3", "--max_runs=2"], " = 3: .*--max_runs=2"),
        (["--seeds=1", "--max_runs=0"], "--max_runs = 0: "),
        (["--seeds=1", "--jobs=-1"], "--jobs = -1: "),
        (["--seeds=1", "--gpus=0"], r"--gpus = \['0'\]: .*--jobs"),
        (["--seeds=1", "--only=seed=2"], "--only = 'seed=2': "),
        (["--seeds=1", "--gather", "--print_commands"], "--print_commands = True: .*--gather"),
        (["--seeds=1", "--slurm="], "--slurm = '': "),
        (["--seeds=1", "--digest=00"], "--digest = '00': .*--only"),
    ],
)
def test_mistakes_are_one_line_before_the_first_run(stubs, capsys, tmp_path, arguments, names):
    assert call(tmp_path, *arguments) == 2
    output = capsys.readouterr()
    assert re.search(names, output.err)
    assert output.err.count("\n") == 1
    assert output.out == ""
    assert calls(tmp_path) == {}


PROGRAM = [sys.executable, sweep_program.__file__, "sweep", CONFIG]


def start(folder, *arguments):
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    words = [*PROGRAM, f"--workdir={folder}", *arguments]
    return subprocess.Popen(words, env=environment, stdout=subprocess.PIPE, text=True)


def wait_for(condition):
    deadline = time.monotonic() + 120
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


@pytest.mark.slow
def test_processes_leave_what_one_process_does(stubs, capsys, tmp_path):
    arguments = [RATES, "--seeds=0,13"]
    with start(tmp_path / "jobs", *arguments, "--jobs=2") as process:
        table = process.communicate()[0]
    assert process.returncode == 2
    assert call(tmp_path / "alone", *arguments) == 2
    assert capsys.readouterr().out == table
    one, other = (json.loads((tmp_path / n / "sweep.json").read_text()) for n in ("jobs", "alone"))
    assert one == other
    log = tmp_path / "jobs" / "train.learning_rate=1.0_seed=13" / "run.log"
    assert "brings bad luck" in log.read_text()


@pytest.mark.slow
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
@pytest.mark.parametrize("jobs", [0, 2])
def test_a_stopped_sweep_resumes(stubs, capsys, tmp_path, how, jobs):
    arguments = ["--seeds=0,1,2,3,4,5", f"--jobs={jobs}"]
    with start(tmp_path / "w", *arguments) as process:
        wait_for((tmp_path / "w" / "sweep.json").exists)  # at least one run is done
        process.send_signal(how)
        process.communicate()
    assert process.returncode == (-9 if how == signal.SIGKILL else 130)
    before = json.loads((tmp_path / "w" / "sweep.json").read_text())["runs"]
    done = {entry["run"]["name"] for entry in before}
    assert 1 <= len(done) < 6
    time.sleep(2)  # what was killed takes the runs with it within a second or so
    with start(tmp_path / "w", *arguments) as process:
        table = process.communicate()[0]
    assert process.returncode == 0
    counts = calls(tmp_path / "w")
    assert all(counts[name] == 1 for name in done)
    assert call(tmp_path / "whole", "--seeds=0,1,2,3,4,5") == 0
    assert capsys.readouterr().out == table
    left = {path.name for path in (tmp_path / "w").rglob(".*") if path.suffix != ".lock"}
    assert left == set() or how == signal.SIGKILL
