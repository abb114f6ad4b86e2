"""Where and when a benchmark ran: hardware, versions, commit, date."""

import datetime
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
_CPU_INFO = pathlib.Path("/proc/cpuinfo")


def describe() -> dict[str, Any]:
    """Device, processor, how many of both, load, versions of packages, commit and date."""
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "processor": _processor(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of the last minute
        "python": platform.python_version(),
        "versions": _versions(),
        "commit": commit(),
        "date": datetime.datetime.now(datetime.UTC).date().isoformat(),
    }


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

    # Benchmarks write their results, and the table of the documentation, into the checkout
    code = (".", ":!experiments/results", ":!docs/benchmarks.md")
    changed = output_of("status", "--porcelain", "--untracked-files=no", "--", *code)
    described = output_of("describe", "--always")
    return f"{described}-dirty" if described and changed else described or delg_jax.__version__


def _processor() -> str:
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
