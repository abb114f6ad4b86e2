"""Stand-ins for packages that only data and stores need, where benchmarks run without them.

Importing this before the package lets benchmarks run on a machine that lacks them. A stand-in does
nothing but be imported: its names are empty classes. Only `ConfigDict` does something: it is a
dictionary whose entries are attributes.
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
    """Entries as attributes."""

    def __getattr__(self, name: str) -> object:
        """The entry `name`."""
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    def __setattr__(self, name: str, value: object) -> None:
        """Sets the entry `name`."""
        self[name] = value


class _Names(type):
    """Of classes that have every name, each an empty class as well."""

    def __getattr__(cls, name: str) -> "_Names":
        if name.startswith("__"):
            raise AttributeError(name)
        return _Names(name, (_Empty,), {})


class _Empty(metaclass=_Names):
    """Can be called and inherited from, with any arguments."""

    def __init__(self, *args: object, **options: object) -> None:
        pass

    def __init_subclass__(cls, **options: object) -> None:
        pass


class _StandIn(types.ModuleType):
    """A module of empty classes."""

    def __getattr__(self, name: str) -> object:
        if name == ConfigDict.__name__:
            return ConfigDict
        return getattr(_Empty, name)


class _Finder(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Finds a stand-in for packages that nobody else finds."""

    def __init__(self, packages: tuple[str, ...]) -> None:
        self._packages = packages

    def find_spec(self, name: str, path: object = None, target: object = None) -> object:
        if name.partition(".")[0] not in self._packages:
            return None
        return importlib.machinery.ModuleSpec(name, self, is_package=True)

    def create_module(self, spec: importlib.machinery.ModuleSpec) -> types.ModuleType:
        return _StandIn(spec.name)

    def exec_module(self, module: types.ModuleType) -> None:
        return None


def install() -> tuple[str, ...]:
    """Makes the missing packages importable; their names."""
    missing = tuple(name for name in PACKAGES if not _is_there(name))
    if missing:
        sys.meta_path.append(_Finder(missing))
    return missing


def _is_there(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ImportError:
        return False
