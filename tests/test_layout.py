"""The shape of the tree: which package may import which, and what public code must say."""

import ast
import functools
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
# Data flows from left to right; a package imports only itself and what stands to its left.
PACKAGES = (
    "data",
    "models",
    "losses",
    "training",
    "features",
    "search",
    "rerank",
    "retrieval",
    "evaluation",
    "sweeps",
    "benchmarks",
    "reports",
    "serving",
    "api",
    "cli",
)
# Where the configuration is taken apart: verbs, what they open with it, and checks of its fields
READS_CONFIG = (
    "delg_jax/api.py",
    "delg_jax/cli/*.py",
    "delg_jax/config*.py",
    "delg_jax/data/__init__.py",
    "delg_jax/evaluation/experiment.py",
    "delg_jax/features/experiment.py",
    "delg_jax/features/formats/exported.py",
    "delg_jax/features/formats/sift.py",
    "delg_jax/features/network.py",
    "delg_jax/features/stablehlo.py",
    "delg_jax/reports/overlaps.py",
    "delg_jax/reports/workdir_results.py",
    "delg_jax/retrieval/pair_matching.py",
    "delg_jax/retrieval/query.py",
    "delg_jax/retrieval/searcher.py",
    "delg_jax/retrieval/settings.py",
    "delg_jax/sweeps/*.py",
    "delg_jax/training/checks.py",
    "delg_jax/training/convert.py",
    "delg_jax/training/train.py",
)
# Elsewhere, what is built from a section, and verbs beside what they use
TAKES_CONFIG = {
    "delg_jax/benchmarks/environment.py": ("describe", "digest"),
    "delg_jax/benchmarks/harness.py": ("write_result",),
    "delg_jax/features/formats/imported.py": ("is_imported",),
    "delg_jax/features/image_sets.py": ("query_boxes",),
    "delg_jax/features/in_memory.py": ("extract_image",),
    "delg_jax/models/delg.py": ("build",),
    "delg_jax/search/engine_choice.py": ("build_engine", "deciding_fields", "index_place"),
    "delg_jax/search/index.py": ("build_index",),
    "delg_jax/training/checkpoints.py": ("__init__",),
    "delg_jax/training/named_weights.py": ("use_weights",),
    "delg_jax/training/trained_network.py": (
        *("load_model", "require_start", "start_from_checkpoint"),
    ),
}
SHARED = -1  # rank of the modules beside the packages (errors, configuration, ...): left of all
MAX_LINES_WITHOUT_DOCSTRING = 8


def _files(*folders: str) -> list[str]:
    """Paths of all Python files in `folders`, from the root of the project."""
    paths = (path for folder in folders for path in (ROOT / folder).rglob("*.py"))
    return sorted(path.relative_to(ROOT).as_posix() for path in paths)


PACKAGE = _files("delg_jax")
EVERYTHING = _files("delg_jax", "experiments", "configs", "tests")


def _rank(parts: tuple[str, ...]) -> int:
    """Rank of a module: the place of its package in PACKAGES, or SHARED."""
    return PACKAGES.index(parts[1]) if len(parts) > 1 and parts[1] in PACKAGES else SHARED


@functools.cache  # several tests read every file
def _nodes(source: str) -> list[ast.AST]:
    """The syntax tree, flat."""
    return list(ast.walk(ast.parse(source)))


def _imports(source: str) -> Iterator[str]:
    """Dotted names that a module imports, at any depth; a relative import starts with a dot.

    `from package import name` gives `package.name`, because the name may be a module.
    """
    for node in _nodes(source):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            prefix = "." * node.level + (node.module or "")
            yield from (f"{prefix}.{alias.name}" for alias in node.names)


# `python -m delg_jax` is the command line, and `import delg_jax` the API.
_PLACED_BY_PYTHON = {
    "delg_jax/__main__.py": ("delg_jax", "cli"),
    "delg_jax/__init__.py": ("delg_jax", "api"),
}


def _misplaced_imports(file: str, source: str) -> list[str]:
    """Imports of `file` that are relative, or lead to a package on its right or to experiments."""
    own = _PLACED_BY_PYTHON.get(file, Path(file).with_suffix("").parts)
    wrong = []
    for name in _imports(source):
        parts = tuple(name.split("."))
        outside = name.startswith(".") or parts[0] in ("experiments", "tests")
        if outside or (parts[0] == "delg_jax" and _rank(parts) > _rank(own)):
            wrong.append(name)
    return wrong


def _undocumented_functions(source: str) -> list[str]:
    return [
        node.name
        for node in _nodes(source)
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and not node.name.startswith("_")
        and node.end_lineno - node.lineno >= MAX_LINES_WITHOUT_DOCSTRING
        and ast.get_docstring(node) is None
    ]


def _heavy_imports(source: str) -> list[str]:
    heavy = {"tensorflow", "torch"}
    return [name for name in _imports(source) if name.split(".")[0] in heavy]


def _take_config(source: str) -> list[str]:
    """Functions with an argument that is a configuration, but checks and constructors `of` it."""
    functions = (node for node in _nodes(source) if isinstance(node, ast.FunctionDef))
    found = [
        function.name
        for function in functions
        if any(
            argument.annotation is not None and "ConfigDict" in ast.unparse(argument.annotation)
            for argument in (*function.args.args, *function.args.kwonlyargs)
        )
    ]
    return [name for name in found if name != "of" and name.partition("_")[0] != "check"]


def _read(file: str) -> str:
    return (ROOT / file).read_text(encoding="utf-8")


def test_a_package_imports_only_from_its_left():
    found = {file: _misplaced_imports(file, _read(file)) for file in PACKAGE}
    assert {file: names for file, names in found.items() if names} == {}


def test_every_folder_of_the_package_has_its_place_in_the_order():
    folders = {Path(file).parts[1] for file in PACKAGE if len(Path(file).parts) > 2}
    assert folders | {"losses", "api"} == set(PACKAGES)


def test_every_folder_of_the_package_is_installed():
    folders = {Path(file).parent for file in PACKAGE}
    assert [str(f) for f in sorted(folders) if not (ROOT / f / "__init__.py").exists()] == []


def test_only_the_converter_imports_tensorflow_or_torch():
    found = [file for file in PACKAGE if _heavy_imports(_read(file))]
    assert [file for file in found if not file.startswith("delg_jax/models/weights/")] == []


def test_there_is_no_grab_bag_file():
    names = {"utils.py", "util.py", "helpers.py", "misc.py"}
    assert [file for file in EVERYTHING if Path(file).name in names] == []


def test_public_functions_are_documented():
    found = {file: _undocumented_functions(_read(file)) for file in PACKAGE}
    assert {file: names for file, names in found.items() if names} == {}


def test_the_configuration_is_taken_apart_at_the_top():
    below = [file for file in PACKAGE if not any(Path(file).match(p) for p in READS_CONFIG)]
    found = {file: _take_config(_read(file)) for file in below}
    assert {file: tuple(sorted(names)) for file, names in found.items() if names} == TAKES_CONFIG


@pytest.mark.parametrize(
    ("arguments", "found"),
    [
        ("config: ml_collections.ConfigDict", ["f"]),
        ("steps: int, train: ml_collections.ConfigDict | None = None", ["f"]),
        ("*, train: ConfigDict", ["f"]),
        ("settings: OptimizerSettings", []),
        ("settings", []),
    ],
)
def test_functions_that_take_a_configuration_are_found(arguments, found):
    assert _take_config(f"def f({arguments}): pass") == found
    assert _take_config(f"def of({arguments}): pass") == []
    assert _take_config(f"def check_f({arguments}): pass") == []


@pytest.mark.parametrize(
    ("file", "statement", "allowed"),
    [
        ("delg_jax/models/delg.py", "from delg_jax.models import resnet", True),
        ("delg_jax/models/delg.py", "from delg_jax.errors import UserError", True),
        ("delg_jax/models/delg.py", "from delg_jax import errors", True),
        ("delg_jax/models/delg.py", "import numpy as np", True),
        ("delg_jax/models/delg.py", "from delg_jax import training", False),
        ("delg_jax/models/delg.py", "from delg_jax import losses", False),
        ("delg_jax/models/delg.py", "import delg_jax.training.step", False),
        ("delg_jax/models/delg.py", "def f():\n  from delg_jax.search import graph", False),
        ("delg_jax/models/delg.py", "from . import resnet", False),
        ("delg_jax/losses.py", "from delg_jax.training import step", False),
        ("delg_jax/errors.py", "from delg_jax.data import images", False),
        ("delg_jax/__main__.py", "from delg_jax.cli.main import console", True),
        ("delg_jax/reports/html.py", "from delg_jax.evaluation import revisited", True),
        ("delg_jax/reports/html.py", "from delg_jax.cli import main", False),
        ("delg_jax/cli/main.py", "from experiments.framework import program", False),
    ],
)
def test_misplaced_imports_are_found(file, statement, allowed):
    assert (_misplaced_imports(file, statement) == []) is allowed


def test_the_other_rules_find_what_breaks_them():
    body = "\n".join(["  x = 1"] * MAX_LINES_WITHOUT_DOCSTRING)
    assert _undocumented_functions(f"def f():\n{body}\ndef _g():\n{body}") == ["f"]
    assert _undocumented_functions(f"def f():\n  '''Does.'''\n{body}") == []
    assert _heavy_imports("def f():\n  import tensorflow as tf") == ["tensorflow"]
    assert _heavy_imports("from torch.nn import Module") == ["torch.nn.Module"]
    assert _heavy_imports("import tensorflow_datasets as tfds") == []
