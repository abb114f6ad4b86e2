import errno
import os
import signal
import subprocess
import sys
import threading

import pytest

from delg_jax.errors import UserError
from delg_jax.locks import exclusive
from delg_jax.training.train import train_and_evaluate
from tests.holding import held
from tests.photographs import make_folder
from tests.tiny import training_config

REFUSAL = "feature store = .*another job"


def test_another_process_is_refused_until_the_holder_ends(tmp_path):
    folder = tmp_path / "features" / "database"
    with held(folder) as holder:
        for _ in range(2):  # a refusal leaves the lock as it is
            with pytest.raises(UserError, match=REFUSAL), exclusive(folder):
                pass
        with exclusive(folder.with_name("queries")):  # another folder is free
            pass
        holder.communicate("")
        assert holder.returncode == 0
        with exclusive(folder):
            assert not folder.exists()


def test_a_killed_process_releases_its_lock(tmp_path):
    with held(tmp_path / "database") as holder:
        os.kill(holder.pid, signal.SIGKILL)
        holder.wait()
        with exclusive(tmp_path / "database"):
            pass


def test_a_killed_process_of_this_program_releases_its_lock(tmp_path):
    program = """
import pathlib, sys, time
from delg_jax.locks import exclusive
with exclusive(pathlib.Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""
    command = [sys.executable, "-c", program, str(tmp_path / "database")]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(UserError, match=REFUSAL), exclusive(tmp_path / "database"):
                pass
        finally:
            holder.kill()
    with exclusive(tmp_path / "database"):
        pass


def test_a_patient_job_waits_until_the_holder_ends(tmp_path):
    with held(tmp_path / "run") as holder:
        end = threading.Timer(0.5, holder.communicate, ("",))
        end.start()
        with exclusive(tmp_path / "run", "run", patience=60):
            assert holder.wait(10) == 0
        end.join()


def test_a_file_system_without_locks_is_refused(tmp_path, monkeypatch):
    def refuse(*_):
        raise OSError(errno.ENOSYS, os.strerror(errno.ENOSYS))

    monkeypatch.setattr("fcntl.flock", refuse)
    names = "workdir = .*database': .*Function not implemented"
    with pytest.raises(UserError, match=names), exclusive(tmp_path / "database"):
        pass


def test_a_lock_is_released_after_an_error(tmp_path):
    with pytest.raises(ZeroDivisionError), exclusive(tmp_path / "database"):
        raise ZeroDivisionError
    with (
        exclusive(tmp_path / "database"),
        pytest.raises(UserError, match=REFUSAL),
        exclusive(tmp_path / "database"),
    ):
        pass


def test_an_unwritable_folder_is_refused(tmp_path):
    (tmp_path / "features").write_text("in the way")
    names = "workdir = .*database': .*written"
    with pytest.raises(UserError, match=names), exclusive(tmp_path / "features" / "database"):
        pass


def test_a_second_training_run_in_a_workdir_is_refused(tmp_path):
    config = training_config(make_folder(tmp_path / "photographs"))
    names = "training run = .*checkpoints': .*another job.* --workdir"
    with held(tmp_path / "run" / "checkpoints"), pytest.raises(UserError, match=names):
        train_and_evaluate(config, tmp_path / "run")
