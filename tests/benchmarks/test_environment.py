import subprocess

import jax
import numpy as np
import pytest

import delg_jax
from delg_jax import configuration
from delg_jax.benchmarks import environment


def test_the_environment_describes_the_machine():
    found = environment.describe()
    assert found["cpus"] >= 1
    assert found["devices"] == jax.device_count()
    assert found["versions"]["numpy"] == np.__version__
    assert found["versions"]["jax"] == jax.__version__


def test_a_result_says_how_it_was_made():
    found = environment.describe({"steps": 3})
    for name in ("command", "configuration", "commit", "date", "processor", "kernels", "pinned"):
        assert name in found
    assert found["configuration"] == environment.digest({"steps": 3})


def test_a_digest_is_of_the_fields_and_not_of_folders():
    config = configuration.load("default")
    moved = configuration.override(config, {"data.root": "/elsewhere/images"})
    back = configuration.override(moved, {"data.root": "/images"})
    changed = configuration.override(moved, {"search.max_features": 7})
    digests = [environment.digest(one) for one in (moved, back, changed)]
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize(
    ("words", "command"),
    [
        (
            "/a/bin/python -m delg_jax bench mds --output=/a/b.json",
            "python -m delg_jax bench mds --output=OUTPUT",
        ),
        ("/a/bin/python -u -m x --config.data.root=/d y", "python -m x --config.data.root=ROOT y"),
        ("/a/bin/python /a/bin/delg evaluate /b/c.jpg --k=a/b", "delg evaluate FILE --k=a/b"),
    ],
)
def test_a_command_names_no_folder_of_the_machine(words, command):
    assert environment.command(words.split()) == command


def test_without_git_the_commit_is_the_version(monkeypatch):
    monkeypatch.setattr(environment.shutil, "which", lambda name: None)
    assert environment.commit() == delg_jax.__version__


def test_without_commits_the_commit_is_the_version(monkeypatch):
    def nothing(*_, **__):
        return subprocess.CompletedProcess([], 128, "", "fatal")

    monkeypatch.setattr(environment.subprocess, "run", nothing)
    assert environment.commit() == delg_jax.__version__


def test_results_do_not_make_a_checkout_dirty(tmp_path, monkeypatch):
    code = tmp_path / "delg_jax" / "__init__.py"
    page = tmp_path / "docs" / "benchmarks.md"
    result = tmp_path / "experiments" / "results" / "bench.json"
    for path in (code, page, result):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text("old\n", encoding="utf-8")
    who = ("-c", "user.name=A", "-c", "user.email=a@b")
    for words in (("init", "-q"), ("add", "."), (*who, "commit", "-qm", "all")):
        subprocess.run(["git", *words], cwd=tmp_path, check=True)
    monkeypatch.setattr(delg_jax, "__file__", str(code))
    clean = environment.commit()
    for path in (page, result):
        path.write_text("new\n", encoding="utf-8")
    assert environment.commit() == clean
    code.write_text("new\n", encoding="utf-8")
    assert environment.commit() == f"{clean}-dirty"
