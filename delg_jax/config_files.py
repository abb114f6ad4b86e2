"""Runs config files: Python programs that may import our configs and the files beside them."""

import contextlib
import importlib.util
import inspect
import pathlib
import sys
import traceback
import types
from collections.abc import Callable, Iterator
from typing import Any

import ml_collections

from delg_jax.errors import UserError

_PACKAGE = "configs"  # what config files import ours from
_MODULE = "delg_config"  # name under which a config file runs


def folder() -> pathlib.Path:
    """The folder of our configs: in the installed package, or beside it in a clone."""
    package = pathlib.Path(__file__).resolve().parent
    installed = package / _PACKAGE
    return installed if installed.is_dir() else package.parent / _PACKAGE


def ours() -> list[str]:
    """Names of our configs."""
    return sorted(file.stem for file in folder().glob("[!_]*.py"))


def find(name: str) -> pathlib.Path:
    """The config file of a name: its path, or the bare name of one of ours (`quickstart`).

    Raises:
      UserError: if there is no such file.
    """
    path = pathlib.Path(name)
    if path.suffix == ".py" and path.is_file():
        return path.resolve()
    if name in ours():
        return folder() / f"{name}.py"
    rule = f"must be an existing Python file (.py), or one of {', '.join(ours())}"
    raise UserError("--config", name, rule)


def run(name: str, argument: str = "") -> ml_collections.ConfigDict:
    """Runs a config file and its `get_config(argument)`.

    `from configs import default` finds our configs, and `import base` the file base.py beside the
    config file, from any working directory. Each call reads all files again and leaves no module
    imported, so two folders can have files of the same name.

    Args:
      name: of the file, as for `find`.
      argument: what follows the colon on the command line; if empty, the function's default.

    Returns:
      What the function returned.

    Raises:
      UserError: if the file raises an exception (with its line), has no `get_config`, or
        `get_config` does not return a ConfigDict.
    """
    path = find(name)
    with _imports(path.parent), _one_line(name, path.parent):
        spec = importlib.util.spec_from_file_location(_MODULE, path)
        assert spec is not None and spec.loader is not None  # noqa: S101, PT018 - a .py file has them
        module = importlib.util.module_from_spec(spec)
        sys.modules[_MODULE] = module  # dataclasses and pickle look there
        spec.loader.exec_module(module)
        function = getattr(module, "get_config", None)
        if not callable(function):
            raise UserError("--config", name, "must define a function get_config")
        config = _call(function, argument)
    if not isinstance(config, ml_collections.ConfigDict):
        rule = f"get_config must return an ml_collections.ConfigDict, not {type(config).__name__}"
        raise UserError("--config", name, rule)
    return config


def _call(function: Callable, argument: str) -> Any:
    """Calls `get_config`, which may take no argument or have a default."""
    parameters = list(inspect.signature(function).parameters.values())
    if not parameters and argument:
        raise UserError("--config argument", argument, "this config takes no argument")
    if not argument and all(p.default is not inspect.Parameter.empty for p in parameters):
        return function()
    return function(argument)


@contextlib.contextmanager
def _one_line(name: str, beside: pathlib.Path) -> Iterator[None]:
    """Turns what a config file raises into a UserError with file and line number."""
    try:
        yield
    except UserError:
        raise
    except (Exception, SystemExit) as error:
        syntax = error if isinstance(error, SyntaxError) and error.filename else None
        places: list[tuple[str | None, int | None]] = [
            (frame.filename, frame.lineno)
            for frame in traceback.extract_tb(error.__traceback__)
            if pathlib.Path(frame.filename).parent in (beside, folder())
        ]
        places += [(syntax.filename, syntax.lineno)] if syntax else []
        place = " at {}, line {}".format(*places[-1]) if places else ""
        text = syntax.msg if syntax else str(error)
        rule = f"fails{place}: {type(error).__name__}: {' '.join(text.split())}"
        raise UserError("--config", name, rule) from error


@contextlib.contextmanager
def _imports(beside: pathlib.Path) -> Iterator[None]:
    """Lets imports inside the block find our configs and the modules of a folder."""
    own = {path.stem for path in beside.glob("*.py")} - sys.stdlib_module_names - {"delg_jax"}
    own |= {_PACKAGE, _MODULE}
    hidden = _take(own)
    before, path, bytecode = set(sys.modules), list(sys.path), sys.dont_write_bytecode
    sys.path[:] = [str(beside), *path, str(beside.parent)]
    sys.modules[_PACKAGE] = _package(beside, path)
    sys.dont_write_bytecode = True  # or a file changed within a second would not be read again
    importlib.invalidate_caches()
    try:
        yield
    finally:
        sys.path[:], sys.dont_write_bytecode = path, bytecode
        new = {name.partition(".")[0] for name in set(sys.modules) - before}
        _take(own | {name for name in new - before if _lies_in(beside, sys.modules.get(name))})
        sys.modules.update(hidden)


def _take(tops: set[str]) -> dict[str, types.ModuleType]:
    """Removes modules and their submodules from `sys.modules`, and returns them."""
    names = [name for name in sys.modules if name.partition(".")[0] in tops]
    return {name: sys.modules.pop(name) for name in names}


def _package(beside: pathlib.Path, path: list[str]) -> types.ModuleType:
    """The package `configs`: a folder of that name around or beside the file, then ours."""
    around = [place for place in (beside, *beside.parents) if place.name == _PACKAGE][:1]
    package = types.ModuleType(_PACKAGE)
    others = [pathlib.Path(entry) / _PACKAGE for entry in path]
    places = [*around, beside / _PACKAGE, folder(), *others]
    package.__path__ = [str(place) for place in places if place.is_dir()]
    return package


def _lies_in(beside: pathlib.Path, module: types.ModuleType | None) -> bool:
    """Whether a top-level module was found in `beside`, or is that folder."""
    places = list(getattr(module, "__path__", None) or [])
    if places:
        return any(beside in (pathlib.Path(p), pathlib.Path(p).parent) for p in places)
    file = getattr(module, "__file__", None)
    return file is not None and pathlib.Path(file).parent == beside
