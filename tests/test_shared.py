"""The folder of photographs, weights and goldens: only tests marked `real` see it."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
TESTS = """
import os
import pytest

def test_unmarked():
    assert "DELG_SHARED" not in os.environ

@pytest.mark.real
def test_marked(shared):
    assert (shared / "here").is_file()

def test_unmarked_again():
    assert "DELG_SHARED" not in os.environ
"""


def outcome(folder, text, shared):
    """Exit status and last lines of a run of pytest on one file with our conftest."""
    (folder / "test_it.py").write_text(text)
    options = ["-q", "-rs", "-p", "no:cacheprovider", "-p", "tests.conftest", f"--rootdir={folder}"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "DELG_SHARED": shared}
    run = subprocess.run(
        [sys.executable, "-m", "pytest", *options, "-c", os.devnull, "test_it.py"],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    return run.returncode, run.stdout + run.stderr


@pytest.mark.parametrize(
    ("shared", "status", "said"),
    [
        (".", 0, "3 passed"),
        ("absent", 1, "DELG_SHARED = 'absent': "),
    ],
)
def test_only_tests_that_are_marked_see_the_folder(tmp_path, shared, status, said):
    (tmp_path / "here").touch()
    found, text = outcome(tmp_path, TESTS, shared)
    assert (found, said in text) == (status, True), text


def test_a_test_that_takes_shared_must_be_marked(tmp_path):
    found, text = outcome(tmp_path, TESTS.replace("@pytest.mark.real\n", ""), ".")
    assert found == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_marked takes the fixture shared: mark it `real`" in text
