"""Verbs of `delg` as processes forked from this one, which has imported everything already."""

import contextlib
import json
import math
import os
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import delg_jax.reports.sweep_tables  # noqa: F401

# Imported here so that a forked program starts at once
from delg_jax.cli.main import console

DEADLINE = 600  # seconds, after which a program counts as hanging
HANGS = -1000  # status of such a program
_PAUSE = 0.02


class Ended(NamedTuple):
    """How a program ended.

    Attributes:
      status: exit status, or minus the signal's number.
      output: both streams.
      seconds: processor time that it took.
    """

    status: int
    output: str
    seconds: float = 0.0


class Program:
    """A verb at work; its signals go to all that it has started.

    Args:
      argv: the command line after the program's name.
    """

    def __init__(self, argv: Sequence[str]) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="delg_faults_")
        self._output = Path(self._folder.name) / "output"
        sys.stdout.flush()
        self._pid = os.fork()
        if self._pid == 0:
            _become(argv, self._output)

    def runs(self, seconds: float = math.inf) -> bool:
        """Whether the program is still at work after so many seconds of processor time.

        Not of the clock, which on a busy machine says little about how far a program is.
        """
        deadline = time.monotonic() + DEADLINE
        while time.monotonic() < deadline:
            if os.waitid(os.P_PID, self._pid, os.WEXITED | os.WNOHANG | os.WNOWAIT):
                return False
            if self._processor_seconds() >= seconds:
                return True
            time.sleep(_PAUSE)
        return True

    def largest_child(self, kilobytes: int = 100_000) -> int | None:
        """The process that a system short of memory ends: the largest that the program started.

        Args:
          kilobytes: that it must have in memory, or it has not begun to work.
        """
        sizes = {pid: _resident(pid) for pid in _children(self._pid)}
        child = max(sizes, key=sizes.get, default=None)
        return child if child is not None and sizes[child] >= kilobytes else None

    def _processor_seconds(self) -> float:
        fields = Path(f"/proc/{self._pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def kill(self, number: int) -> None:
        """Sends a signal."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._pid, number)

    def end(self) -> Ended:
        """Waits for its end."""
        hangs = self.runs()
        self.kill(signal.SIGKILL)
        _, status, usage = os.wait4(self._pid, 0)
        status = HANGS if hangs else os.waitstatus_to_exitcode(status)
        output = self._output.read_text(errors="replace")
        self._folder.cleanup()
        return Ended(status, output, usage.ru_utime + usage.ru_stime)


def run(argv: Sequence[str]) -> Ended:
    """Runs a verb that nothing disturbs."""
    return Program(argv).end()


def call(function: Callable[..., Any], *arguments: Any) -> Any:
    """The JSON value of a function in a process of its own, so that this one stays forkable."""
    with tempfile.NamedTemporaryFile("r") as answer:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                Path(answer.name).write_text(json.dumps(function(*arguments)))
                status = 0
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(status)
        if os.waitpid(pid, 0)[1]:
            raise RuntimeError(f"{function.__name__} failed")
        return json.loads(answer.read())


def _become(argv: Sequence[str], output: Path) -> None:
    """Turns the forked process into the program."""
    status = 1
    try:
        os.setsid()
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        handle = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
        os.dup2(handle, 1)
        os.dup2(handle, 2)
        sys.argv = ["delg", *argv]
        console()
    except SystemExit as stopped:
        status = stopped.code or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(status)


def _children(pid: int) -> list[int]:
    """Process ids of what a process has started, in any of its threads."""
    lists = Path(f"/proc/{pid}/task").glob("*/children")
    return [int(word) for path in lists for word in path.read_text().split()]


def _resident(pid: int) -> int:
    """Kilobytes of a process in memory; 0 if it has ended."""
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):
        lines = Path(f"/proc/{pid}/status").read_text().splitlines()
        return next((int(line.split()[1]) for line in lines if line.startswith("VmRSS:")), 0)
    return 0
