"""Empty modules in place of packages that only data sets and stores need.

With them, `delg_jax` can be imported on a machine without these packages, and benchmarks run there.
Every name in an empty module is an empty class, except `ConfigDict`, a dictionary whose entries are
attributes.
"""

import importlib.abc
import importlib.machinery
import importlib.util
import sys
import types

PACKAGES = (
    "array_record",
    "grain",
    "h5py",
    "ml_collections",
    "tensorflow_datasets",
    "tensorstore",
    "tqdm",
)


class ConfigDict(dict):
    """A dictionary whose entries are attributes."""

    def __getattr__(self, name: str) -> object:
        """Returns the entry `name`."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: object) -> None:
        """Sets the entry `name`."""
        self[name] = value


class _EmptyMeta(type):
    """Metaclass of classes that have every attribute, each an empty class as well."""

    def __getattr__(cls, name: str) -> "_EmptyMeta":
        if name.startswith("__"):
            raise AttributeError(name)
        return _EmptyMeta(name, (_Empty,), {})


class _Empty(metaclass=_EmptyMeta):
    """Can be called and inherited from, with any arguments."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __init_subclass__(cls, **options: object) -> None:
        pass


class _EmptyModule(types.ModuleType):
    """A module of empty classes."""

    def __getattr__(self, name: str) -> object:
        if name == ConfigDict.__name__:
            return ConfigDict
        return getattr(_Empty, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds empty modules for packages that no other finder finds."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _EmptyModule(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def install_empty_modules() -> tuple[str, ...]:
    """Makes missing packages importable; returns their names."""
    missing = tuple(name for name in PACKAGES if not _is_installed(name))
    if missing:
        sys.meta_path.append(_Finder(missing))
    return missing


def _is_installed(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
