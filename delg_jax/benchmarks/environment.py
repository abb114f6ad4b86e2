"""Where a result comes from: command, configuration, commit, date, hardware, versions."""

import datetime
import hashlib
import importlib.metadata
import json
import os
import pathlib
import platform
import shutil
import subprocess
import sys
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import ml_collections

import delg_jax
from delg_jax import configuration
from delg_jax.benchmarks import blas_kernels

_PACKAGES = (
    "numpy",
    "jax",
    "jaxlib",
    "flax",
    "scipy",
    "torch",
    "faiss-cpu",
    "opencv-python-headless",
    "scikit-image",
    "scikit-learn",
    "tensorflow",
    "tensorflow-cpu",
)
_CPU_INFO = pathlib.Path("/proc/cpuinfo")
_DIGITS = 16  # of a digest


def describe(config: ml_collections.ConfigDict | Mapping[str, Any] | None = None) -> dict[str, Any]:
    """What a result file says about where it comes from.

    Args:
      config: what decides the result, a configuration or other fields; None if the command alone
        does.

    Returns:
      `command`; `configuration`, the digest of its fields, wherever data lie; `commit`, with
      `-dirty` if the code was changed; `date`; `device`, `processor`, how many of both, and `load`;
      `kernels` of BLAS, and `pinned`, the variables that pin them; `python` and `versions`.
    """
    asked = command(sys.orig_argv)
    return {
        "command": asked,
        "configuration": digest({"command": asked} if config is None else config),
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of the last minute
        "kernels": blas_kernels.in_use(),
        "pinned": blas_kernels.pinned(),
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


def command(words: Sequence[str]) -> str:
    """The command line of a process, without the folders of this machine.

    Args:
      words: the interpreter and its arguments, as `sys.orig_argv`.

    Returns:
      For example `python -m delg_jax evaluate --config.data.root=ROOT`.
    """
    rest = list(words[1:])
    while rest and rest[0].startswith("-") and rest[0] not in ("-m", "-c"):
        rest.pop(0)  # options of the interpreter
    if not rest or rest[0] != "-m":
        program = pathlib.Path(rest[0]).name if rest else "python"
        return " ".join([program, *map(_without_folder, rest[1:])])
    return " ".join(["python", *map(_without_folder, rest)])


def _without_folder(word: str) -> str:
    """A word whose absolute path is replaced by the name of its flag, in capitals."""
    flag, equals, value = word.rpartition("=")
    if not pathlib.PurePath(value).is_absolute():
        return word
    return f"{flag}{equals}{flag.rpartition('.')[2].lstrip('-').upper() or 'FILE'}"


def digest(config: ml_collections.ConfigDict | Mapping[str, Any]) -> str:
    """Digest of all fields of a configuration but the folders where things lie.

    Args:
      config: a configuration, or other fields.

    Returns:
      Hexadecimal digits.
    """
    is_tree = isinstance(config, ml_collections.ConfigDict)
    fields = configuration.flatten(config) if is_tree else dict(config)
    kept = {
        name: value
        for name, value in fields.items()
        if not (isinstance(value, str) and pathlib.PurePath(value).is_absolute())
    }
    text = json.dumps(kept, sort_keys=True, default=str)
    return hashlib.blake2b(text.encode(), digest_size=_DIGITS // 2).hexdigest()


def commit() -> str:
    """Commit of the checkout, with `-dirty` if its code is changed; else the package's version."""
    folder = pathlib.Path(delg_jax.__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return delg_jax.__version__

    def output_of(*words: str) -> str:
        command = [git, *words]
        done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return done.stdout.strip()

    # Programs write their results, and the figures of the documentation, into the checkout
    code = (".", ":!experiments/results", ":!docs", ":!README.md")
    changed = output_of("status", "--porcelain", "--untracked-files=no", "--", *code)
    described = output_of("describe", "--always")
    return f"{described}-dirty" if described and changed else described or delg_jax.__version__


def processor() -> str:
    """The name of the processor, as the system gives it."""
    try:
        lines = _CPU_INFO.read_text().splitlines()
    except OSError:
        return platform.processor()
    names = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(names, platform.processor())


def _versions() -> dict[str, str]:
    found = {}
    for name in _PACKAGES:
        try:
            found[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found
