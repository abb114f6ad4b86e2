"""Seconds that a block of code takes, and memory beyond what the process had before."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

_PROCESS = pathlib.Path("/proc/self")
_RESET_PEAK = "5"  # written to clear_refs, see proc(5)


@dataclasses.dataclass
class Cost:
    """Filled in at the end of the block.

    Attributes:
      seconds: of wall-clock time.
      megabytes: growth of the resident memory at its peak; None except on Linux.
    """

    seconds: float = 0.0
    megabytes: float | None = None

    def __add__(self, other: "Cost") -> "Cost":
        """Of two blocks in sequence: the sum of the seconds, the larger of the peaks."""
        megabytes = None
        if self.megabytes is not None and other.megabytes is not None:
            megabytes = max(self.megabytes, other.megabytes)
        return Cost(self.seconds + other.seconds, megabytes)


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Yields the cost of the block, filled in at its end."""
    cost = Cost()
    before = resident_megabytes() if _reset_peak() else None
    start = time.monotonic()
    yield cost
    cost.seconds = time.monotonic() - start
    peak = _status("VmHWM")
    if before is not None and peak is not None:
        cost.megabytes = max(peak - before, 0.0)


def resident_megabytes() -> float | None:
    """Megabytes of memory that this process holds; None except on Linux."""
    return _status("VmRSS")


def _reset_peak() -> bool:
    """Whether Linux let us reset the peak memory of this process."""
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _status(field: str) -> float | None:
    """Megabytes of a field of /proc/self/status; None except on Linux."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
    return next(found, None)
