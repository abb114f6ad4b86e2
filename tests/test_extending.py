"""The diffs of docs/extending.md apply to the code, and what they add works."""

import os
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]
PAGE = (ROOT / "docs" / "extending.md").read_text(encoding="utf-8")
DIFFS = dict(re.findall(r"^## An? ([\w -]+)\n.*?^```diff\n(.*?)^```", PAGE, re.M | re.S))

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git applies the diffs")


@pytest.fixture
def code(tmp_path):
    """A copy of what the diffs change, outside any repository."""
    ignored = shutil.ignore_patterns("__pycache__")
    for name in ("delg_jax", "configs"):
        shutil.copytree(ROOT / name, tmp_path / name, ignore=ignored)
    return tmp_path


def apply(diff, folder):
    """Applies one diff; git ignores files outside its repository, so it must see none."""
    environment = {**os.environ, "GIT_CEILING_DIRECTORIES": str(folder.parent)}
    command = ["git", "apply", "-"]
    subprocess.run(command, input=diff, text=True, cwd=folder, env=environment, check=True)
    for name in re.findall(r"^\+\+\+ b/(.*)$", diff, re.M):
        changed = (folder / name).read_text(encoding="utf-8")
        added = [line[1:] for line in diff.splitlines() if re.match(r"\+(?!\+\+ )", line)]
        assert any(line and line in changed for line in added), name


def test_the_page_shows_four_additions():
    assert list(DIFFS) == ["backbone", "loss", "re-ranker", "data set"]


@pytest.mark.parametrize("name", DIFFS)
def test_each_diff_applies_alone(code, name):
    apply(DIFFS[name], code)


@pytest.mark.slow
def test_the_additions_work_and_are_clean(code):
    for diff in DIFFS.values():
        apply(diff, code)
    shutil.copy(ROOT / "pyproject.toml", code)
    for check in (["check"], ["format", "--check"]):
        subprocess.run([sys.executable, "-m", "ruff", *check, "."], cwd=code, check=True)
    environment = {**os.environ, "PYTHONPATH": f"{code}{os.pathsep}{ROOT}", "JAX_PLATFORMS": "cpu"}
    command = [sys.executable, "-P", "-m", "tests.extended", str(code)]
    result = subprocess.run(command, cwd=code, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr[-3000:]
    assert "all four work" in result.stdout
