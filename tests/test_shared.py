"""The folder of photographs, weights and goldens: only tests marked `real` see it."""

import os

import pytest

from tests import conftest

pytest_plugins = ("pytester",)

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


@pytest.fixture
def outcome(pytester, monkeypatch):
    """Runs pytest on one file with our conftest; exit status, and what it printed."""

    def run(text, shared):
        monkeypatch.setenv("DELG_SHARED", shared)
        pytester.makepyfile(test_it=text)
        options = ("-q", "-rs", "-p", "no:cacheprovider", "-c", os.devnull, "--rootdir=.")
        found = pytester.runpytest_inprocess(*options, "test_it.py", plugins=[conftest])
        return found.ret, f"{found.stdout}\n{found.stderr}"

    return run


@pytest.mark.parametrize(
    ("shared", "status", "said"),
    [
        (".", 0, "3 passed"),
        ("absent", 1, "DELG_SHARED = 'absent': "),
    ],
)
def test_only_tests_that_are_marked_see_the_folder(pytester, outcome, shared, status, said):
    (pytester.path / "here").touch()
    found, text = outcome(TESTS, shared)
    assert (found, said in text) == (status, True), text


def test_a_test_that_takes_shared_must_be_marked(outcome):
    found, text = outcome(TESTS.replace("@pytest.mark.real\n", ""), ".")
    assert found == pytest.ExitCode.USAGE_ERROR
    assert "test_it.py::test_marked takes the fixture shared: mark it `real`" in text
