"""Commands and result files that documentation names."""

import ast
import importlib.util
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).resolve().parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md")])
SOURCES = sorted(
    path
    for folder in ("delg_jax", "configs", "experiments")
    for path in ROOT.glob(f"{folder}/**/*.py")
)
_COMMAND = re.compile(r"python3? -m (experiments(?:\.[a-z0-9_]+)+)")
_RESULT = re.compile(r"\]\((experiments/results/[\w.]+)\)")


def _docstrings(path):
    tree = ast.parse(path.read_text(encoding="utf-8"))
    kinds = (ast.Module, ast.ClassDef, ast.FunctionDef)
    return [ast.get_docstring(node) or "" for node in ast.walk(tree) if isinstance(node, kinds)]


def _texts(path):
    is_source = path.suffix == ".py"
    return _docstrings(path) if is_source else [path.read_text(encoding="utf-8")]


@pytest.mark.parametrize(
    "path", [*DOCUMENTS, *SOURCES, ROOT / "Makefile"], ids=lambda path: str(path.relative_to(ROOT))
)
def test_commands_name_modules_that_exist(path):
    commands = {module for text in _texts(path) for module in _COMMAND.findall(text)}
    assert [name for name in sorted(commands) if importlib.util.find_spec(name) is None] == []


@pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.name)
def test_links_to_results_lead_to_files(path):
    links = set(_RESULT.findall(path.read_text(encoding="utf-8")))
    assert [link for link in sorted(links) if not (ROOT / link).is_file()] == []


def test_a_program_with_a_command_names_itself():
    for path in sorted((ROOT / "experiments").glob("*/*.py")):
        text = path.read_text(encoding="utf-8")
        if "__main__" in text:
            module = ".".join(path.relative_to(ROOT).with_suffix("").parts)
            assert module in _COMMAND.findall(ast.get_docstring(ast.parse(text))), path


def test_no_two_programs_write_one_result():
    names = []
    for path in sorted((ROOT / "experiments").glob("*/*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and ast.unparse(node.func) == "harness.write_result":
                names.append(node.args[1])
    names = [name.value for name in names if isinstance(name, ast.Constant)]
    assert len(names) == len(set(names)) >= 8
    assert not [name for name in names if name.startswith("bench_")]  # those of `delg bench`


def test_every_result_is_written_with_its_origin():
    """By `harness.write_result`, which adds commit, command, configuration and machine."""
    for path in sorted((ROOT / "experiments").rglob("*.py")):
        text = path.read_text(encoding="utf-8")
        assert not re.search(r"write_(json|text)\([^)]*results", text), path
