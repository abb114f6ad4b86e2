"""Compiled programs: kept on disk for later processes, and limited in number within one."""

import contextlib
import ctypes
import gc
import hashlib
import importlib.util
import logging
import pathlib
import platform

import jax

from delg_jax import workdir
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_HELD = pathlib.Path("/proc/self/maps")
_STATUS = pathlib.Path("/proc/self/status")
_MAX_SHARE = 0.5  # of the limit; above it programs are dropped
_CPU = pathlib.Path("/proc/cpuinfo")
_BYTES_ON_DISK = 2 * 2**30  # the programs that were used last are kept
_LEAST_SECONDS = 0.1  # of compilation; programs that take less are not kept
_MAX_GROWTH = 1024  # megabytes of memory since programs were dropped last

_memory_then: list[float] = []  # megabytes at the first call, or when programs were dropped last


def keep_on_disk() -> None:
    """Keeps compiled programs in the user's folder of caches, unless JAX has a folder already.

    The folder is another for each kind of processor, because homes are shared and a program of one
    can fail on another.
    """
    if jax.config.values["jax_compilation_cache_dir"]:
        return
    try:
        folder = workdir.user_cache() / "compiled" / _processor()
        folder.mkdir(parents=True, exist_ok=True)
    except (OSError, UserError) as error:
        _LOG.info("compiled programs are not kept (%s)", error)
        return
    jax.config.update("jax_compilation_cache_dir", str(folder))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", _LEAST_SECONDS)
    if importlib.util.find_spec("filelock"):  # which JAX needs to delete old programs
        jax.config.update("jax_compilation_cache_max_size", _BYTES_ON_DISK)


def _processor() -> str:
    """A name for the kind of processor, by the instructions it has."""
    try:
        lines = _CPU.read_text(encoding="utf-8").splitlines()
        features = next(line for line in lines if line.startswith(("flags", "Features")))
    except (OSError, StopIteration):
        features = platform.processor()
    return f"{platform.machine()}-{hashlib.sha256(features.encode()).hexdigest()[:12]}"


def release_if_many() -> bool:
    """Drops the compiled programs if they take much memory, or half of the maps that Linux allows.

    An XLA program of a deep network takes 15 MB for each canvas size, and no library tells how much
    it is: the growth of the memory of the process counts. It also takes dozens of maps (limit
    65,530 by default), and a process that exceeds the limit crashes without a message. Dropped
    programs are compiled again, or read from JAX's cache on disk.

    Returns:
      Whether programs were dropped; False on other systems.
    """
    held, memory = _held_share(), _memory()
    _memory_then[:] = _memory_then or [memory]
    if held <= _MAX_SHARE and memory <= _memory_then[0] + _MAX_GROWTH:
        return False
    _LOG.info("%.0f%% of memory maps, %.0f MB: dropping compiled programs", 100 * held, memory)
    jax.clear_caches()
    gc.collect()
    _return_free_memory()
    _memory_then[:] = [_memory()]
    return True


def _held_share() -> float:
    """Memory maps as a share of the limit; 0 if there is none."""
    try:
        limit = int(_LIMIT.read_text(encoding="ascii"))
        with _HELD.open("rb") as file:
            return sum(1 for _ in file) / limit
    except (OSError, ValueError, ZeroDivisionError):
        return 0.0


def _memory() -> float:
    """Megabytes of this process, without files that are mapped; 0 if unknown."""
    try:
        lines = _STATUS.read_text(encoding="ascii").splitlines()
    except OSError:
        return 0.0
    kilobytes = (int(line.split()[1]) for line in lines if line.startswith("RssAnon:"))
    return next(kilobytes, 0) / 1024


def _return_free_memory() -> None:
    """Lets the C library give memory that nothing uses back to the system, if it is glibc."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)
