"""Compiled programs: kept on disk for later processes, and limited in number within one."""

import hashlib
import importlib.util
import logging
import os
import pathlib
import platform

import jax

_LOG = logging.getLogger(__name__)

_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_HELD = pathlib.Path("/proc/self/maps")
_MAX_SHARE = 0.5  # of the limit; above it programs are dropped
_CPU = pathlib.Path("/proc/cpuinfo")
_BYTES_ON_DISK = 2 * 2**30  # the programs that were used last are kept
_LEAST_SECONDS = 0.1  # of compilation; programs that take less are not kept


def keep_on_disk() -> None:
    """Keeps compiled programs in the user's folder of caches, unless JAX has a folder already.

    The folder is another for each kind of processor, because homes are shared and a program of one
    can fail on another.
    """
    if jax.config.jax_compilation_cache_dir:
        return
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    folder = pathlib.Path(caches).expanduser() / "delg_jax" / "compiled" / _processor()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _LOG.info("%s: compiled programs are not kept (%s)", folder, error.strerror)
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
    """Drops the compiled programs if they take half of the memory maps that Linux allows.

    Each XLA program takes dozens of maps (limit 65,530 by default), and a process that exceeds the
    limit crashes without a message: after about fifty trainings, or a hundred canvas sizes of a
    deep network. Dropped programs are compiled again, or read from JAX's cache on disk.

    Returns:
      Whether programs were dropped; False on other systems, which have no such limit.
    """
    try:
        limit = int(_LIMIT.read_text(encoding="ascii"))
        with _HELD.open("rb") as file:
            held = sum(1 for _ in file)
    except (OSError, ValueError):
        return False
    if held <= _MAX_SHARE * limit:
        return False
    _LOG.info("%d of %d memory maps in use: dropping compiled programs", held, limit)
    jax.clear_caches()
    return True
