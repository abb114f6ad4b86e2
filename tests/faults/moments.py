"""The faults: when they come, and how a verb may end by them."""

import contextlib
import os
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from tests.faults import results
from tests.faults.programs import HANGS, Ended, Program, call, run
from tests.faults.scenes import Scene

FAULTS = ("killed", "terminated", "full disk", "read-only", "worker killed")
# Verbs that work in processes of their own, one of which ends where memory is short
_WITH_WORKERS = {"train": (), "sweep": ("--jobs=1",)}
_USER = 2  # exit status of an error that the user can fix
_PAGE = 4096
_ROOM = "2g"
_PAUSE = 0.05


class Moment(NamedTuple):
    """One disturbance.

    Attributes:
      verb: of `scenes.SCENES`.
      fault: of `FAULTS`.
      share: when it comes, as a share of the processor time or disk space that the verb takes.
    """

    verb: str
    fault: str
    share: float


class Outcome(NamedTuple):
    """What became of a disturbed verb.

    Attributes:
      moment: the disturbance.
      hit: whether the verb ended by it; else it was done before.
      problems: what is wrong; empty if the restart left what an undisturbed run leaves.
    """

    moment: Moment
    hit: bool
    problems: list[str]


def plan(count: int, seed: int, verbs: tuple[str, ...], faults: tuple[str, ...]) -> list[Moment]:
    """Moments that take verbs and faults in turn, at random shares."""
    rng = np.random.default_rng(seed)
    pairs = [
        (verb, fault)
        for fault in faults
        for verb in verbs
        if fault != "worker killed" or verb in _WITH_WORKERS
    ]
    shares = rng.uniform(0.02, 0.98, count)
    return [Moment(*pairs[i % len(pairs)], float(share)) for i, share in enumerate(shares)]


def try_moment(moment: Moment, scene: Scene) -> Outcome:
    """Disturbs a verb, starts it again, and compares what is there in the end."""
    with _disk() as place:
        workdir = place / "run"
        scene.prepare(workdir)
        ended = _DISTURB[moment.fault](moment, scene, workdir)
        problems = wrong_end(moment, ended)
        if not scene.spoil:
            problems += [f"not whole: {path}" for path in call(results.not_whole, workdir)]
        again = run(scene.argv(workdir))
        if again.status:
            problems.append(f"the restart ended with {again.status}: {again.output[-800:]}")
            return Outcome(moment, ended.status != 0, problems)
        found = call(results.fingerprint, workdir, (*scene.before, *scene.after))
    names = sorted(set(found) | set(scene.expected))
    problems += [f"differs: {n}" for n in names if found.get(n) != scene.expected.get(n)]
    stopped = moment.fault == "terminated" and "stopped at step" in ended.output
    return Outcome(moment, ended.status != 0 or stopped, problems)


def can_mount() -> bool:
    """Whether file systems can be made here, for full and read-only disks."""
    with tempfile.TemporaryDirectory() as folder:
        done = os.geteuid() == 0 and not _mount("-t", "tmpfs", "tmpfs", folder)
        if done:
            subprocess.run(["umount", "-l", folder], check=True)
        return done


def wrong_end(moment: Moment, ended: Ended) -> list[str]:
    """What is wrong with how a disturbed verb ended."""
    said = f"{ended.status}: {ended.output[-1500:]}"
    if ended.status == HANGS:
        return [f"hangs: {said}"]
    first = ended.output.find("Traceback")
    if first >= 0:
        return [f"a traceback: {ended.status}: {ended.output[first : first + 3000]}"]
    by_signal = moment.fault in ("killed", "terminated") and ended.status < 0
    interrupted = moment.fault == "terminated" and ended.status in (75, 130)
    lines = [line for line in ended.output.splitlines() if line.startswith("delg: ")]
    refused = ended.status == _USER and len(lines) == 1
    return [] if ended.status == 0 or by_signal or interrupted or refused else [f"ended by {said}"]


def _killed(moment: Moment, scene: Scene, workdir: Path) -> Ended:
    program = Program(scene.argv(workdir))
    number = signal.SIGTERM if moment.fault == "terminated" else signal.SIGKILL
    if program.runs(moment.share * scene.seconds):
        program.kill(number)
    return program.end()


def _full(moment: Moment, scene: Scene, workdir: Path) -> Ended:
    parts = (path for part in scene.after for path in scene.whole.glob(part))
    used, new = _used(workdir), sum(map(_used, parts))
    size = used + max(int(moment.share * new), _PAGE)
    _remount(workdir.parent, f"size={size}")
    try:
        return run(scene.argv(workdir))
    finally:
        _remount(workdir.parent, f"size={_ROOM}")


def _read_only(moment: Moment, scene: Scene, workdir: Path) -> Ended:
    """A verb was killed, and its folder cannot be written when it starts again."""
    _killed(moment, scene, workdir)
    _remount(workdir.parent, "ro")
    try:
        return run(scene.argv(workdir))
    finally:
        _remount(workdir.parent, "rw")


def _worker_killed(moment: Moment, scene: Scene, workdir: Path) -> Ended:
    """What a system that is out of memory does: it ends the largest process."""
    program = Program(scene.argv(workdir, *_WITH_WORKERS[moment.verb]))
    while program.runs(0) and program.largest_child() is None:
        time.sleep(_PAUSE)
    time.sleep(moment.share * scene.seconds)
    child = program.largest_child()
    if child is not None:
        os.kill(child, signal.SIGKILL)
    return program.end()


_DISTURB = {
    "killed": _killed,
    "terminated": _killed,
    "full disk": _full,
    "read-only": _read_only,
    "worker killed": _worker_killed,
}


@contextlib.contextmanager
def _disk() -> Iterator[Path]:
    """A folder that is a file system of its own, where that can be made."""
    with tempfile.TemporaryDirectory(prefix="delg_disk_") as name:
        mounted = os.geteuid() == 0 and not _mount("-t", "tmpfs", "-o", f"size={_ROOM}", "t", name)
        try:
            yield Path(name)
        finally:
            if mounted:
                subprocess.run(["umount", "-l", name], check=True)


def _remount(place: Path, option: str) -> None:
    error = _mount("-o", f"remount,{option}", str(place))
    if error:
        raise RuntimeError(error)


def _mount(*words: str) -> str:
    """Calls mount; what went wrong."""
    done = subprocess.run(["mount", *words], capture_output=True, text=True)
    return done.stderr if done.returncode else ""


def _used(path: Path) -> int:
    """Bytes that the files of a folder take."""
    files = [path] if path.is_file() else [p for p in path.rglob("*") if p.is_file()]
    return sum(-(-file.stat().st_size // _PAGE) * _PAGE for file in files)
