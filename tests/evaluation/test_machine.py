import subprocess

import jax
import numpy as np

import delg_jax
from delg_jax.evaluation import machine


def test_says_what_matters_for_a_time():
    found = machine.describe()
    assert found["cpus"] >= 1
    assert found["devices"] == jax.device_count()
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["jax"] == jax.__version__


def test_without_git_the_version_stands_for_the_commit(monkeypatch):
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)
    assert machine.commit() == delg_jax.__version__


def test_a_folder_without_commits_has_the_version(monkeypatch):
    def nothing(*_, **__):
        return subprocess.CompletedProcess([], 128, "", "fatal")

    monkeypatch.setattr(machine.subprocess, "run", nothing)
    assert machine.commit() == delg_jax.__version__
