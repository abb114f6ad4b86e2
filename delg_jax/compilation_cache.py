"""Limits the number of compiled programs in a process."""

import logging
import pathlib

import jax

_LOG = logging.getLogger(__name__)

_LIMIT = pathlib.Path("/proc/sys/vm/max_map_count")
_HELD = pathlib.Path("/proc/self/maps")
_MAX_SHARE = 0.5  # of the limit; above it programs are dropped


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
