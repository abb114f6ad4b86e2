"""Imports every module of the installed package; those of extras may be absent as such."""

import importlib
import pkgutil
import sys

import delg_jax

# Modules that are imported only where their extra is installed
_OPTIONAL = {"aiohttp", "apache_beam", "tensorflow", "torch"}


def main() -> int:
    """Imports all; the exit status."""
    failed = 0
    for module in pkgutil.walk_packages(delg_jax.__path__, "delg_jax."):
        if module.name.endswith("__main__"):
            continue
        try:
            importlib.import_module(module.name)
        except ModuleNotFoundError as error:
            if error.name is None or error.name.split(".")[0] not in _OPTIONAL:
                sys.stderr.write(f"{module.name}: {error}\n")
                failed = 1
    return failed


if __name__ == "__main__":
    sys.exit(main())
