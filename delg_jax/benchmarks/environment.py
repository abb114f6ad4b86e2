"""On what a benchmark ran: hardware, versions, commit."""

import importlib.metadata
import os
import pathlib
import platform
import shutil
import subprocess
from typing import Any

import jax

import delg_jax

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
_CPU = pathlib.Path("/proc/cpuinfo")


def describe() -> dict[str, Any]:
    """The machine: device, processor, number of both, load, versions of what is installed."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of the last minute
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": commit(),
    }


def commit() -> str:
    """Of the checkout that runs, `-dirty` if its code is changed; else the package's version."""
    folder = pathlib.Path(delg_jax.__file__).resolve().parents[1]
    git = shutil.which("git")
    if git is None or not (folder / ".git").exists():
        return delg_jax.__version__

    def said(*words: str) -> str:
        command = [git, *words]
        found = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
        return found.stdout.strip()

    # Benchmarks themselves write results and the table of them into the checkout
    code = (".", ":!experiments/results", ":!README.md")
    changed = said("status", "--porcelain", "--untracked-files=no", "--", *code)
    described = said("describe", "--always")
    return f"{described}-dirty" if described and changed else described or delg_jax.__version__


def _processor() -> str:
    try:
        lines = _CPU.read_text().splitlines()
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
