"""The number of processes or threads that decode images."""

import os

AUTO = -1
_MOST = 32  # each process holds two batches


def worker_count(workers: int) -> int:
    """The number that `config.data.workers` asks for.

    Args:
      workers: number, or `AUTO` for one on each core that this process may use, at most 32.
    """
    if workers != AUTO:
        return workers
    usable = (
        len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    )
    return min(usable, _MOST)
