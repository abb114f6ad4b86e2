"""Which BLAS kernels products run on, and the variables that would pin them.

A kernel pinned to another processor slows down NumPy, faiss and scikit-learn, but not XLA, which
makes them look worse than they are. Benchmarks therefore unset these variables for all they time.
"""

import importlib
import os
import sys

PINS = (
    "ATEN_CPU_CAPABILITY",
    "BLIS_ARCH_TYPE",
    "DNNL_MAX_CPU_ISA",
    "MKL_CBWR",
    "MKL_DEBUG_CPU_TYPE",
    "MKL_ENABLE_INSTRUCTIONS",
    "NPY_DISABLE_CPU_FEATURES",
    "NVPL_BLAS_DEBUG_CPU_TYPE",
    "ONEDNN_MAX_CPU_ISA",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)


def unpin() -> None:
    """Unsets the variables, for this process and those it starts.

    Libraries read them when they are loaded: once NumPy is, this does nothing.
    """
    if "numpy" not in sys.modules:
        for name in PINS:
            os.environ.pop(name, None)


def restart_unpinned() -> None:
    """Starts the command of this process again without the variables, if any is set."""
    if pinned():
        environment = {name: value for name, value in os.environ.items() if name not in PINS}
        os.execve(sys.executable, [sys.executable, *sys.orig_argv[1:]], environment)


def pinned() -> list[str]:
    """The variables that are set, as `NAME=value`."""
    return [f"{name}={os.environ[name]}" for name in PINS if name in os.environ]


def in_use() -> list[str]:
    """The kernel of each BLAS library in this process, such as `openblas 0.3.30 Haswell`.

    Returns:
      Names; empty without the package threadpoolctl, of the extra `bench`.
    """
    try:
        found = importlib.import_module("threadpoolctl").threadpool_info()
    except ImportError:
        return []
    libraries = [one for one in found if one["user_api"] == "blas"]
    parts = [(one["internal_api"], one["version"], one.get("architecture")) for one in libraries]
    return sorted({" ".join(str(part) for part in one if part) for one in parts})
