import contextlib
import fcntl
import os
import subprocess
import sys
from pathlib import Path

import pytest

from delg_jax import temporaries, workdir

_HOLD = """
import pathlib, sys, time
from delg_jax import temporaries

with temporaries.beside(pathlib.Path(sys.argv[1]), folder=bool(sys.argv[2])) as made:
    if sys.argv[2]:
        (made / "inner").mkdir()
        (made / "inner" / "a").write_text("half")
    print(made, flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def _nothing_seen(monkeypatch):
    """As in a process that has written nowhere."""
    monkeypatch.setattr(temporaries, "_left", {})


@contextlib.contextmanager
def writer(path, folder=False):
    """Another process that writes; its temporary file."""
    command = [sys.executable, "-c", _HOLD, str(path), "folder" * folder]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield Path(process.stdout.readline().strip())
        finally:
            process.kill()


def killed(path, folder=False):
    """What a killed writer leaves."""
    with writer(path, folder) as temporary:
        pass
    assert temporary.exists()
    return temporary


@pytest.mark.parametrize("folder", [False, True])
def test_the_next_writer_removes_what_a_killed_one_left_and_no_other(tmp_path, folder):
    path = tmp_path / "output"
    left, other = killed(path, folder), killed(tmp_path / "other")
    with writer(path, folder) as living:
        with temporaries.beside(path, folder) as own:
            assert sorted(tmp_path.iterdir()) == sorted([own, living, other])
            assert own.is_dir() == folder
        assert sorted(tmp_path.iterdir()) == sorted([living, other])
    assert not left.exists()


def test_a_claimed_folder_is_cleared_of_killed_writers_alone(tmp_path):
    left = [killed(tmp_path / "a.json"), killed(tmp_path / "index", folder=True)]
    kept = [tmp_path / name for name in (".index.lock", ".a.json.part", "b.12345678", "c")]
    for path in kept:
        path.touch()
    with writer(tmp_path / "a.json") as living:
        temporaries.remove_abandoned(tmp_path)
        assert sorted(tmp_path.iterdir()) == sorted([*kept, living])
    assert not any(path.exists() for path in left)


def test_a_write_after_a_kill_leaves_the_output_alone(tmp_path):
    path = tmp_path / "file.txt"
    killed(path)
    workdir.write_text(path, "whole")
    assert list(tmp_path.iterdir()) == [path]
    with path.open() as file:  # and unlocked
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)


@pytest.mark.parametrize("folder", [False, True])
def test_what_is_taken_before_it_is_locked_is_made_again(tmp_path, monkeypatch, folder):
    taken = []
    flock = fcntl.flock

    def take(handle, operation):
        if not taken:
            (path,) = tmp_path.iterdir()
            taken.append(path)
            temporaries._remove(path)
        flock(handle, operation)

    monkeypatch.setattr(fcntl, "flock", take)
    with temporaries.beside(tmp_path / "output", folder) as temporary:
        assert temporary.exists()
        assert temporary != taken[0]
    assert list(tmp_path.iterdir()) == []


def test_without_locks_nothing_is_removed(tmp_path, monkeypatch):
    left = killed(tmp_path / "output")

    def refuse(*_):
        raise OSError(os.strerror(37))

    monkeypatch.setattr(fcntl, "flock", refuse)
    with temporaries.beside(tmp_path / "output") as temporary:
        assert temporary.exists()
    assert list(tmp_path.iterdir()) == [left]


def test_a_link_is_left_alone(tmp_path):
    (tmp_path / "target").touch()
    link = tmp_path / ".output.12345678"
    link.symlink_to(tmp_path / "target")
    temporaries.remove_abandoned(tmp_path)
    assert link.is_symlink()
