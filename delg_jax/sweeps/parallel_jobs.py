"""Runs of a sweep as processes in parallel, as shell commands, or as a Slurm job array."""

import collections
import contextlib
import dataclasses
import logging
import os
import pathlib
import shlex
import signal
import subprocess
import threading
import time
from collections.abc import Generator, Iterator, Mapping, Sequence

import ml_collections

from delg_jax.errors import UserError
from delg_jax.locks import exclusive
from delg_jax.sweeps import run_record, sweep
from delg_jax.sweeps.run_record import BEGUN, FAILED, LOG, Record
from delg_jax.sweeps.sweep import Result, Run
from delg_jax.workdir import root_of

_LOG = logging.getLogger(__name__)

_PARENT = "DELG_SWEEP_PROCESS"  # environment variable: process id of the sweep of a run
_POLL_SECONDS = 0.1
_GRACE_SECONDS = 30.0  # from SIGTERM, on which training saves a checkpoint, to SIGKILL
_SCRIPT = """\
#!/bin/bash
#SBATCH --job-name=delg-sweep
#SBATCH --array={array}
# Submit with the resources of a run, for example: sbatch --gres=gpu:1 --time=8:00:00 SCRIPT
# For the table, also while runs are in progress:
#   cd {folder}
#   {gather}
set -eu
cd {folder}

# run FOLDER COMMAND...: its output goes to a file in the folder
run() {{
  mkdir -p "$1"
  exec "${{@:2}}" >>"$1/{log}" 2>&1
}}

case "${{SLURM_ARRAY_TASK_ID:?is set by sbatch}}" in
{cases}
esac
"""


def run(
    base: ml_collections.ConfigDict,
    runs: Sequence[Run],
    workdir: str | pathlib.Path,
    commands: Mapping[str, Sequence[str]],
    jobs: int,
    gpus: Sequence[str] = (),
    overwrite: bool = False,
) -> list[Result]:
    """As `sweep.run`, with `jobs` runs at a time, each in its own process.

    A run that is killed, for example for lack of memory, counts as failed. The output of a run
    goes to `run.log` in its folder.

    Args:
      base: the configuration that runs change.
      runs: see `Run`.
      workdir: gets a folder for each run, and `sweep.json`.
      commands: command line of each run, which calls `sweep.run_one`, by the name of the run.
      jobs: number of runs at a time.
      gpus: values of CUDA_VISIBLE_DEVICES that the jobs take in turn; empty leaves it as it is.
      overwrite: whether a finished run of another configuration is accepted.

    Returns:
      A result for each run, in their order.

    Raises:
      UserError: before the first run, as `sweep.run`.
    """
    root = root_of(workdir)
    configs = sweep.check(base, runs, root, overwrite)
    wanted = {
        one.name: Record.begin(config, one.verbs) for one, config in zip(runs, configs, strict=True)
    }
    results: dict[str, Result] = {}
    for one in runs:
        if result := sweep.finished(one, wanted[one.name], root / one.name):
            results[one.name] = result
    by_name = {one.name: one for one in runs}
    waiting = {name: commands[name] for name in by_name if name not in results}
    with contextlib.closing(_run_commands(waiting, root, jobs, gpus)) as exits:
        for name, status in exits:
            results[name] = _outcome(by_name[name], wanted[name], root / name, status)
            outcome = results[name].error or "finished"
            _LOG.info("run %d/%d: %s: %s", len(results), len(runs), name, outcome)
            sweep.write(root, [results[name] for name in by_name if name in results])
    sweep.write(root, [results[name] for name in by_name])
    return [results[name] for name in by_name]


@dataclasses.dataclass(frozen=True)
class _Job:
    name: str
    slot: int
    process: subprocess.Popen


def _run_commands(
    commands: Mapping[str, Sequence[str]], root: pathlib.Path, jobs: int, gpus: Sequence[str]
) -> Generator[tuple[str, int]]:
    """Yields name and exit status of each command as it ends; closing it early stops them all."""
    waiting = collections.deque(commands)
    active: list[_Job] = []
    try:
        while waiting or active:
            while waiting and len(active) < jobs:
                slot = min(set(range(jobs)) - {job.slot for job in active})
                gpu = gpus[slot % len(gpus)] if gpus else None
                name = waiting.popleft()
                process = _start(commands[name], root / name, gpu)
                active.append(_Job(name, slot, process))
            ended = [job for job in active if job.process.poll() is not None]
            for job in ended:
                active.remove(job)
                if job.process.returncode < 0:
                    _kill(job)  # the processes that it started
                yield job.name, job.process.returncode
            if not ended:
                time.sleep(_POLL_SECONDS)
    finally:
        _stop(active)


def _start(command: Sequence[str], folder: pathlib.Path, gpu: str | None) -> subprocess.Popen:
    environment = {**os.environ, _PARENT: str(os.getpid())}
    if gpu is not None:
        environment["CUDA_VISIBLE_DEVICES"] = gpu
    try:
        folder.mkdir(parents=True, exist_ok=True)
        log = (folder / run_record.LOG).open("ab")
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
    with log:
        return subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            env=environment,
            start_new_session=True,  # Ctrl-C reaches only the sweep, which stops its runs
        )


def _stop(active: Sequence[_Job]) -> None:
    """Terminates the processes, and kills those that are still there after the grace period."""
    for job in active:
        job.process.terminate()
    deadline = time.monotonic() + _GRACE_SECONDS
    try:
        for job in active:
            with contextlib.suppress(subprocess.TimeoutExpired):
                job.process.wait(max(deadline - time.monotonic(), 0))
    finally:  # also after a second Ctrl-C
        for job in active:
            if job.process.poll() is None:
                _kill(job)
                job.process.wait()


def _kill(job: _Job) -> None:
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(job.process.pid, signal.SIGKILL)


def _outcome(one: Run, wanted: Record, folder: pathlib.Path, status: int) -> Result:
    """The outcome of a run whose process ended."""
    found = run_record.read(folder)
    known = found if found is not None and found.is_of(wanted) else wanted
    if known.status != BEGUN:
        return Result(one, dict(known.metrics), known.error)
    error = f"ended with status {status}"
    if status < 0:
        error = f"was killed by {signal.Signals(-status).name}"
        error += " (out of memory?)" if -status == signal.SIGKILL else ""
    error += f"; see {folder / run_record.LOG}"
    failed = dataclasses.replace(known, status=FAILED, error=error)
    with contextlib.suppress(UserError), exclusive(folder, "run"):  # otherwise another job holds it
        failed.write(folder)
    return Result(one, dict(failed.metrics), error)


@contextlib.contextmanager
def interruptible() -> Iterator[None]:
    """Turns SIGTERM into a KeyboardInterrupt within the block, so that cleanup runs.

    In the process of a run, it also stops the run if the sweep was killed.
    """
    previous = signal.signal(signal.SIGTERM, signal.default_int_handler)
    parent = int(os.environ.get(_PARENT, "0"))
    if parent:
        threading.Thread(target=_stop_with_parent, args=(parent,), daemon=True).start()
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _stop_with_parent(parent: int) -> None:
    while os.getppid() == parent:
        time.sleep(1.0)
    os.kill(os.getpid(), signal.SIGTERM)


def patience() -> float:
    """Seconds that a run of `--jobs` waits for the same run of a sweep that was killed.

    That one notices, saves a checkpoint and ends.
    """
    return _GRACE_SECONDS if _PARENT in os.environ else 0.0


def lines(commands: Mapping[str, Sequence[str]]) -> list[str]:
    """One shell line per command.

    Args:
      commands: command lines by the name of the run.
    """
    return [shlex.join(words) for words in commands.values()]


def slurm_script(
    commands: Mapping[str, Sequence[str]],
    gather: Sequence[str],
    workdir: str | pathlib.Path,
    folder: pathlib.Path,
    jobs: int = 0,
) -> str:
    """A script for sbatch, with one array element per command.

    Args:
      commands: command lines by the name of the run; at least one.
      gather: command line that makes the table.
      workdir: of the sweep, which gets the logs; relative to `folder` or absolute.
      folder: where the commands run.
      jobs: maximum number at a time; 0 leaves it to Slurm.

    Returns:
      The text of the script.
    """
    root = pathlib.Path(workdir)
    cases = [
        f"  {number}) run {shlex.join([str(root / name), *words])} ;;"
        for number, (name, words) in enumerate(commands.items())
    ]
    return _SCRIPT.format(
        array=f"0-{len(commands) - 1}" + (f"%{jobs}" if jobs else ""),
        folder=shlex.quote(str(folder)),
        gather=shlex.join(gather),
        log=LOG,
        cases="\n".join(cases),
    )
