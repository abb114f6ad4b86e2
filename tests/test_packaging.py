"""What an installation brings: its needs, its extras, its command and the pinned versions."""

import ast
import importlib
import importlib.metadata
import subprocess
import sys
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.specifiers import SpecifierSet
from packaging.utils import canonicalize_name
from packaging.version import Version

import delg_jax

ROOT = Path(__file__).resolve().parents[1]
PYTHONS = ("3.11", "3.12", "3.13")
HEAVY = {"tensorflow", "torch", "apache-beam", "libtpu"}


def _setup_arguments() -> dict:
    """The arguments of `setup` that are written as literals, read without an installation."""
    calls = [
        node
        for node in ast.walk(ast.parse((ROOT / "setup.py").read_text(encoding="utf-8")))
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "setup"
    ]
    arguments = {}
    for keyword in calls[0].keywords:
        try:
            arguments[keyword.arg] = ast.literal_eval(keyword.value)
        except ValueError:  # computed, such as the version
            continue
    return arguments


SETUP = _setup_arguments()
BASE = [Requirement(line) for line in SETUP["install_requires"]]
EXTRAS = {
    name: [Requirement(line) for line in lines] for name, lines in SETUP["extras_require"].items()
}


def _pins(python: str) -> dict[str, Version]:
    """Exact versions of the constraints file for a Python version, by canonical name."""
    lines = (ROOT / "constraints" / f"{python}.txt").read_text(encoding="utf-8").splitlines()
    pairs = [line.split("==") for line in lines]
    assert all(len(pair) == 2 for pair in pairs), "a constraints file holds only name==version"
    return {canonicalize_name(name): Version(version) for name, version in pairs}


def test_extras():
    devices, data = {"cuda", "tpu"}, {"convert", "pretrained"}
    others = {"tensorboard", "wandb", "beam", "serve", "fuzz"}
    assert set(EXTRAS) == devices | data | others | {"test", "bench", "docs"}


def test_the_base_needs_no_other_framework_and_no_accelerator():
    assert HEAVY.isdisjoint(canonicalize_name(need.name) for need in BASE)
    assert [str(need) for need in BASE if need.extras] == []


def test_the_test_extra_needs_no_other_framework():
    assert HEAVY.isdisjoint(canonicalize_name(need.name) for need in EXTRAS["test"])


@pytest.mark.parametrize("need", BASE + EXTRAS["test"], ids=str)
def test_a_requirement_is_a_range(need):
    assert {">=", "=="} & {part.operator for part in need.specifier}


def test_supported_pythons_are_those_with_constraints():
    supported = SpecifierSet(SETUP["python_requires"])
    minors = [f"3.{minor}" for minor in range(8, 30)]
    assert tuple(python for python in minors if Version(python) in supported) == PYTHONS
    pins = sorted(path.stem for path in (ROOT / "constraints").iterdir())
    assert pins == [*PYTHONS, "oldest"]


@pytest.mark.parametrize("python", PYTHONS)
def test_constraints_cover_every_direct_requirement(python):
    pins = _pins(python)
    for need in BASE + EXTRAS["test"]:
        assert pins[canonicalize_name(need.name)] in need.specifier, need


def test_constraints_cover_every_indirect_requirement():
    """Follows the needs of the installed packages, on the Python that runs the test."""
    pins = _pins(f"{sys.version_info.major}.{sys.version_info.minor}")
    seen, waiting = set(), [*BASE, *EXTRAS["test"]]
    while waiting:
        need = waiting.pop()
        if str(need) in seen:
            continue
        seen.add(str(need))
        name = canonicalize_name(need.name)
        assert name in pins
        if importlib.metadata.version(name) != str(pins[name]):
            continue  # another version may have other needs
        for line in importlib.metadata.requires(need.name) or []:
            further = Requirement(line)
            if further.marker is None or any(
                further.marker.evaluate({"extra": extra}) for extra in {"", *need.extras}
            ):
                waiting.append(further)


@pytest.mark.parametrize("package", ["reports", "serving"])
def test_every_file_of_a_page_is_packaged(package):
    root = ROOT / "delg_jax" / package
    patterns = SETUP["package_data"][f"delg_jax.{package}"]
    packaged = {path for pattern in patterns for path in root.glob(pattern)}
    assert {path for path in (root / "templates").rglob("*") if path.is_file()} == packaged


def test_the_licence_of_the_charts_is_packaged():
    licence = ROOT / "delg_jax" / "reports" / "templates" / "vendor" / "uPlot.LICENSE"
    assert licence.is_file()
    assert licence.relative_to(ROOT).as_posix() in SETUP["license_files"]


def test_the_installed_version_is_that_of_the_source():
    try:
        installed = importlib.metadata.version("delg_jax")
    except importlib.metadata.PackageNotFoundError:
        pytest.skip("delg_jax is not installed: the tests run from the source tree")
    assert installed == delg_jax.__version__


def test_the_version_heads_the_changelog():
    headings = [
        line
        for line in (ROOT / "CHANGELOG.md").read_text(encoding="utf-8").splitlines()
        if line.startswith("## ")
    ]
    assert headings[0].startswith(f"## [{delg_jax.__version__}]")


def test_the_command_exists():
    (script,) = SETUP["entry_points"]["console_scripts"]
    command, target = script.split(" = ")
    module, function = target.split(":")
    assert command == "delg"
    assert callable(getattr(importlib.import_module(module), function))


def test_every_module_imports_without_tensorflow_and_torch_and_few_load_matplotlib():
    program = """
import importlib, pkgutil, sys

class Absent:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("tensorflow", "torch"):
            raise ModuleNotFoundError(f"no module named {name}")

sys.meta_path.insert(0, Absent())
import delg_jax.cli.main, delg_jax.reports.charts, delg_jax.reports.html
assert "matplotlib" not in sys.modules, "matplotlib is loaded by those who do not draw"
for module in pkgutil.walk_packages(delg_jax.__path__, "delg_jax."):
    importlib.import_module(module.name)
"""
    run = subprocess.run(
        [sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stderr
