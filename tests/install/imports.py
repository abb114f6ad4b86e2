"""Imports every module of the installed package; missing extras are allowed."""

import importlib
import pkgutil
import sys

import delg_jax

# Imported only if their extra is installed
_OPTIONAL = {"aiohttp", "apache_beam", "tensorflow", "torch"}


def main() -> int:
    """Returns the exit status."""
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
