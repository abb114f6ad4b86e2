"""What a piece of work costs: seconds, and memory beyond what the process had before."""

import contextlib
import dataclasses
import pathlib
import time
from collections.abc import Iterator

_PROCESS = pathlib.Path("/proc/self")
_RESET_PEAK = "5"  # written to clear_refs, see proc(5)


@dataclasses.dataclass
class Cost:
    """Filled in when the work has ended.

    Attributes:
      seconds: of wall-clock time.
      megabytes: by which the resident memory grew at its peak; None where only Linux could tell.
    """

    seconds: float = 0.0
    megabytes: float | None = None

    def __add__(self, other: "Cost") -> "Cost":
        """Of one work after another: seconds add up, the larger peak stays."""
        peaks = (self.megabytes, other.megabytes)
        megabytes = None if None in peaks else max(peaks)
        return Cost(self.seconds + other.seconds, megabytes)


@contextlib.contextmanager
def measured() -> Iterator[Cost]:
    """Yields the cost of the block, which is known at its end."""
    cost = Cost()
    before = _resident("VmRSS") if _peak_begins_now() else None
    start = time.monotonic()
    yield cost
    cost.seconds = time.monotonic() - start
    peak = _resident("VmHWM")
    if before is not None and peak is not None:
        cost.megabytes = max(peak - before, 0.0)


def _peak_begins_now() -> bool:
    try:
        (_PROCESS / "clear_refs").write_text(_RESET_PEAK)
    except OSError:
        return False
    return True


def _resident(field: str) -> float | None:
    """Megabytes that Linux counts for this process; None where it does not."""
    try:
        lines = (_PROCESS / "status").read_text().splitlines()
    except OSError:
        return None
    found = (int(line.split()[1]) / 1024 for line in lines if line.startswith(f"{field}:"))
    return next(found, None)
