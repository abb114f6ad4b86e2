"""Compiled programs, of which a process can hold only so many."""

import logging
import pathlib

import jax

_LOG = logging.getLogger(__name__)

_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_HELD = pathlib.Path("/proc/self/maps")
_SHARE = 0.5  # of the limit, from which on programs are dropped


def release_if_many() -> bool:
    """Drops the compiled programs if they take half of the memory maps that Linux allows.

    Each program of XLA takes dozens of maps (65,530 by default), and a process that is refused one
    ends without a word: after some fifty trainings, or some hundred canvases of a deep network.
    What is still needed is compiled again, or read from JAX's cache on disk.

    Returns:
      Whether they were dropped; never on other systems, which have no such limit.
    """
    try:
        limit = int(_LIMIT.read_text(encoding="ascii"))
        with _HELD.open("rb") as file:
            held = sum(1 for _ in file)
    except (OSError, ValueError):
        return False
    if held <= _SHARE * limit:
        return False
    _LOG.info("%d memory maps of %d are taken: compiled programs are dropped", held, limit)
    jax.clear_caches()
    return True
