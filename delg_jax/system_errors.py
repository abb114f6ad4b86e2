"""What the machine cannot give, as errors that say what to do: space, rights, memory, files."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from delg_jax.errors import UserError

_GO_ON = "the same command goes on"
# Error of the system: what is short of it, and what to do
_SHORT = {
    errno.ENOSPC: ("disk", f"free some, and {_GO_ON}"),
    errno.EDQUOT: ("disk", f"free some, and {_GO_ON}"),
    errno.EFBIG: ("disk", f"raise the limit, and {_GO_ON}"),
    errno.EROFS: ("disk", f"make it writable, and {_GO_ON}, or take another --workdir"),
    errno.EACCES: ("file", "give the right to it, or take another place"),
    errno.EPERM: ("file", "give the right to it, or take another place"),
    errno.EIO: ("disk", "is failing; copy what is there to another"),
    errno.EMFILE: ("open files", f"raise the limit (ulimit -n), and {_GO_ON}"),
    errno.ENOMEM: (
        "memory",
        f"take smaller batches or blocks, or end other programs, and {_GO_ON}",
    ),
}
# Libraries wrap what the system says in errors of their own
_SAID = {os.strerror(number): number for number in _SHORT}
_WORKER_KILLED = "Worker process was terminated unexpectedly with exit code -9"  # of Grain
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate", re.IGNORECASE)
_PATH = re.compile(r"""["'](/[^"']+)["']""")


def explain(error: BaseException) -> UserError | None:
    """The line for an error that comes from the machine; None for one of the program.

    Args:
      error: whatever a verb raised. What it was raised from counts, too.
    """
    for found in _chain(error):
        if _WORKER_KILLED in str(found):
            rule = f"was killed (out of memory?); take fewer config.data.workers, and {_GO_ON}"
            return UserError("process", "input worker", rule)
        number = _number(found)
        if number is not None:
            subject, remedy = _SHORT[number]
            return UserError(subject, _place(found), f"{os.strerror(number)}; {remedy}")
    return None


def is_other(record: logging.LogRecord) -> bool:
    """Whether a log record tells of no shortage: a filter for libraries that log, then raise."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or explain(error) is None


def without_late_writers(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """A `sys.unraisablehook` without what TensorStore says of writes that outlive a failed save.

    Args:
      hook: for all else.
    """

    def said(problem: Any) -> None:
        if str(problem.exc_value) != "Event loop is closed":
            hook(problem)

    return said


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that led to it."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    """The system's number of what is short."""
    if isinstance(error, OSError) and error.errno in _SHORT:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error)
    said = (number for words, number in _SAID.items() if words in text)
    return next(said, errno.ENOMEM if _OUT_OF_MEMORY.search(text) else None)


def _place(error: BaseException) -> str:
    """The file that the error is about, as far as it says."""
    if isinstance(error, OSError) and error.filename:
        return str(error.filename)
    found = _PATH.search(str(error))
    return found[1] if found else ""
