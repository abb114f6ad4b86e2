"""Errors of the machine (disk, memory, permissions), explained in one line with a remedy."""

import errno
import logging
import os
import re
from collections.abc import Callable, Iterator
from typing import Any

from delg_jax.errors import UserError

_RESUME = "run the same command to resume"
# Subject and remedy by error number
_REMEDIES = {
    errno.ENOSPC: ("disk", f"free some space, then {_RESUME}"),
    errno.EDQUOT: ("disk", f"free some space, then {_RESUME}"),
    errno.EFBIG: ("disk", f"raise the limit, then {_RESUME}"),
    errno.EROFS: ("disk", f"make it writable, then {_RESUME}; or use another --workdir"),
    errno.EACCES: ("file", "change its permissions, or use another path"),
    errno.EPERM: ("file", "change its permissions, or use another path"),
    errno.EIO: ("disk", "the disk is failing; copy the files to another one"),
    errno.ESTALE: ("file", f"the file server has replaced or lost it; {_RESUME}"),
    errno.EBUSY: ("file", f"end the programs that use it, then {_RESUME}"),
    errno.ENOTEMPTY: ("folder", f"end the programs that use its files, then {_RESUME}"),
    errno.ENOLCK: ("locks", "the file server has none left; use another --workdir"),
    errno.EMFILE: ("open files", f"raise the limit (ulimit -n), then {_RESUME}"),
    errno.ENOMEM: (
        "memory",
        f"use smaller batches or blocks, or stop other programs, then {_RESUME}",
    ),
    errno.EAGAIN: (
        "threads",
        f"raise the limit (ulimit -u), or stop other programs, then {_RESUME}",
    ),
}
_SHORTAGES = (errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EAGAIN)
# Libraries put the message of the system into errors of their own
_MESSAGES = {os.strerror(number): number for number in _REMEDIES}
_WORKER_KILLED = "Worker process was terminated unexpectedly with exit code -9"  # of Grain
_OUT_OF_MEMORY = re.compile(r"out of memory|bad_alloc|failed to allocate", re.IGNORECASE)
_OUT_OF_THREADS = re.compile(r"can't start new thread|could not start a? ?thread", re.IGNORECASE)
_PATH = re.compile(r"""["'](/[^"']+)["']""")


def explain(error: BaseException) -> UserError | None:
    """Explains an error that comes from the machine; None for an error of the program.

    Args:
      error: raised by a verb. Its causes are searched as well.
    """
    for found in _chain(error):
        if _WORKER_KILLED in str(found):
            rule = f"was killed (out of memory?); use fewer config.data.workers, then {_RESUME}"
            return UserError("process", "input worker", rule)
        number = _number(found)
        if number is not None:
            subject, remedy = _REMEDIES[number]
            return UserError(subject, _path(found), f"{os.strerror(number)}; {remedy}")
    return None


def reraise(error: BaseException) -> None:
    """Raises an error that comes from the machine, explained; for readers of damaged files.

    Libraries raise anything for a damaged file. What the machine lacks says nothing about it.
    """
    explained = explain(error)
    if explained is not None:
        raise explained from error


def is_shortage(error: BaseException) -> bool:
    """Whether an error of reading a file comes from a shortage, and not from the file."""
    return isinstance(error, MemoryError) or getattr(error, "errno", None) in _SHORTAGES


def is_other(record: logging.LogRecord) -> bool:
    """Filters log records about errors of the machine: libraries log them and then raise."""
    error = record.exc_info[1] if record.exc_info else None
    return error is None or explain(error) is None


def without_late_writers(hook: Callable[[Any], None]) -> Callable[[Any], None]:
    """A `sys.unraisablehook` that ignores TensorStore's message on writes after a failed save.

    Args:
      hook: for everything else.
    """

    def filtered(problem: Any) -> None:
        if str(problem.exc_value) != "Event loop is closed":
            hook(problem)

    return filtered


def _chain(error: BaseException | None) -> Iterator[BaseException]:
    """An error and its causes."""
    seen = set()
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        yield error
        error = error.__cause__ or error.__context__


def _number(error: BaseException) -> int | None:
    """The error number of the system; None if it is another error."""
    if isinstance(error, OSError) and error.errno in _REMEDIES:
        return error.errno
    if isinstance(error, MemoryError):
        return errno.ENOMEM
    text = str(error)
    numbers = (number for message, number in _MESSAGES.items() if message in text)
    if (found := next(numbers, None)) is not None:
        return found
    if _OUT_OF_THREADS.search(text):
        return errno.EAGAIN
    return errno.ENOMEM if _OUT_OF_MEMORY.search(text) else None


def _path(error: BaseException) -> str:
    """The file that an error names, or an empty string."""
    if isinstance(error, OSError) and error.filename:
        return str(error.filename)
    found = _PATH.search(str(error))
    return found[1] if found else ""
