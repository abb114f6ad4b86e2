"""Settings and fixtures of all tests, loaded before any test uses a device."""

import atexit
import gc
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from absl import flags

from delg_jax.compilation_cache import release_if_many
from delg_jax.features.extraction import Loader

# Tests check values, not speed: they run on the CPU unless JAX_PLATFORMS names another platform.
# The variable is set too, so that programs started by a test use the same.
jax.config.update("jax_platforms", os.environ.setdefault("JAX_PLATFORMS", "cpu"))
# Eight virtual devices, so that every use of several devices is tested on any machine.
jax.config.update("jax_num_cpu_devices", 8)
# Implicit broadcasting over a new axis is an error.
jax.config.update("jax_numpy_rank_promotion", "raise")
# Compiling is most of the work of the tests, and small programs are most of what is compiled. One
# cache serves all processes of the run, because workers of pytest-xdist inherit the variable. A
# folder that the caller names is kept for the next run.
if "DELG_TEST_CACHE" not in os.environ:
    os.environ["DELG_TEST_CACHE"] = tempfile.mkdtemp(prefix="delg_jax_compiled_")
    atexit.register(shutil.rmtree, os.environ["DELG_TEST_CACHE"], ignore_errors=True)
jax.config.update("jax_compilation_cache_dir", os.environ["DELG_TEST_CACHE"])
jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.1)  # less is quicker than a file
jax.config.update("jax_include_full_tracebacks_in_locations", False)  # a tenth of all lowering
# The programs are small, so that compiling with optimisations costs more than it saves. Set
# XLA_FLAGS, which may be empty, to compile in another way: `make test-slow` compiles as users do.
if "XLA_FLAGS" not in os.environ:
    _quick = ["--xla_backend_optimization_level=0", "--xla_llvm_disable_expensive_passes=true"]
    if jax.__version_info__ < (0, 11):  # later versions end at flags that they do not have
        _quick += [
            "--xla_cpu_use_fusion_emitters=false",
            "--xla_cpu_parallel_codegen_split_count=1",
        ]
    os.environ["XLA_FLAGS"] = " ".join(_quick)
# Grain reads absl flags, which otherwise only absl.app.run parses.
flags.FLAGS.mark_as_parsed()


@pytest.fixture(autouse=True, scope="module")
def _few_programs() -> Iterator[None]:
    """Drops compiled programs before a process holds more than the system allows."""
    yield
    release_if_many()


@pytest.fixture
def rng() -> np.random.Generator:
    """A random generator with the same numbers in each test, in any order of tests."""
    return np.random.default_rng(0)


@pytest.fixture
def loaded(monkeypatch) -> list[str]:
    """Names of the images that extraction read, in the order of reading."""
    names: list[str] = []
    original = Loader.load

    def call(self, index):
        names.append(self.source.names[index])
        return original(self, index)

    monkeypatch.setattr(Loader, "load", call)
    return names


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Refuses a test that takes `shared` but is not marked `real`."""
    for item in items:
        own = item.callspec.params if hasattr(item, "callspec") else {}  # parameters of that name
        takes = "shared" in getattr(item, "fixturenames", ()) and "shared" not in own
        if takes and not item.get_closest_marker("real"):
            raise pytest.UsageError(f"{item.nodeid} takes the fixture shared: mark it `real`")


def pytest_collection_finish() -> None:
    """Spares the collector the modules and tests, which stay: tracing makes many small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(100_000, 20, 100)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item) -> Iterator[None]:
    """Hides DELG_SHARED from tests not marked `real` and from the programs they start."""
    hidden = None if item.get_closest_marker("real") else os.environ.pop("DELG_SHARED", None)
    try:
        return (yield)
    finally:
        if hidden is not None:
            os.environ["DELG_SHARED"] = hidden


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder of real photographs, published weights and golden values, named by DELG_SHARED."""
    named = os.environ.get("DELG_SHARED")
    if not named:
        pytest.skip("DELG_SHARED names no folder of photographs, weights and goldens")
    folder = Path(named).resolve()
    if not folder.is_dir():
        pytest.fail(f"DELG_SHARED = {named!r}: must be an existing folder")
    return folder
