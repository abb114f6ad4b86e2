import os
import subprocess
import sys
import types

from delg_jax.benchmarks import blas_kernels

PINNED = {"OPENBLAS_CORETYPE": "Prescott", "MKL_CBWR": "COMPATIBLE"}
SHOW = "from delg_jax.benchmarks import blas_kernels as b; print(b.pinned())"


def _output(*words):
    environment = {**os.environ, **PINNED}
    done = subprocess.run(words, capture_output=True, text=True, env=environment, check=True)
    return done.stdout


def test_programs_that_time_run_on_the_kernel_of_the_processor():
    assert "OPENBLAS_CORETYPE=Prescott" in _output(sys.executable, "-c", SHOW)
    unpinned = _output(sys.executable, "-c", f"import experiments.benchmarks; {SHOW}")
    assert unpinned.strip() == "[]"
    console = "import sys; sys.argv = ['delg', 'bench', '--help']; from delg_jax.cli.main import *"
    code = f"{console}\ntry:\n  console()\nexcept SystemExit:\n  pass\n{SHOW}"
    assert _output(sys.executable, "-c", code).strip().endswith("[]")


def test_variables_stay_once_numpy_has_read_them(monkeypatch):
    monkeypatch.setenv("MKL_CBWR", "COMPATIBLE")
    blas_kernels.unpin()
    assert "MKL_CBWR=COMPATIBLE" in blas_kernels.pinned()


def test_kernels_are_those_of_threadpoolctl(monkeypatch):
    one = {"user_api": "blas", "internal_api": "openblas", "version": "0.3", "architecture": "Zen"}
    other = {"user_api": "openmp", "internal_api": "openmp", "version": "5"}
    found = types.SimpleNamespace(
        threadpool_info=lambda: [one, one, other, {**one, "architecture": None}]
    )
    monkeypatch.setitem(sys.modules, "threadpoolctl", found)
    assert blas_kernels.in_use() == ["openblas 0.3", "openblas 0.3 Zen"]
    monkeypatch.setitem(sys.modules, "threadpoolctl", None)
    assert blas_kernels.in_use() == []
