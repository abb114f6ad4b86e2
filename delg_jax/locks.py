"""A lock on a folder for one writer at a time; the system releases it if the holder dies."""

import contextlib
import logging
import pathlib
import time
from collections.abc import Callable, Iterator
from typing import TypeVar

import filelock

from delg_jax import distributed
from delg_jax.errors import UserError
from delg_jax.file_names import to_text

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

_LINE_SECONDS = 30.0  # between log lines of a wait


@contextlib.contextmanager
def exclusive(
    folder: pathlib.Path, subject: str = "feature store", patience: float = 0.0
) -> Iterator[None]:
    """Locks a folder inside the block.

    Args:
      folder: to write to. The lock is the file `.FOLDER.lock` next to it, which is kept.
      subject: what the folder holds, for errors.
      patience: seconds that another job may hold the lock.

    Raises:
      UserError: if another job holds the lock, or the folder cannot be written or locked. Locks
        reach across machines on file systems that share them, such as NFS of version 4.
    """
    try:
        held = _lock(folder).acquire(timeout=patience)
    except filelock.Timeout as error:
        rule = "is being written by another job; wait for it, or take another --workdir"
        raise UserError(subject, str(folder), rule) from error
    except OSError as error:
        rule = f"must be a folder that can be written and locked ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
    with held:
        yield


@contextlib.contextmanager
def after_others(folder: pathlib.Path) -> Iterator[bool]:
    """Locks a folder inside the block, once no other job holds it; logs that it waits.

    Args:
      folder: as for `exclusive`.

    Yields:
      Whether it is locked; False where the file system has no locks or cannot be written.
    """
    start, held = time.monotonic(), None
    lock = _lock(folder)
    while held is None:
        try:
            held = lock.acquire(timeout=_LINE_SECONDS, poll_interval=1.0)
        except filelock.Timeout:
            seconds = time.monotonic() - start
            _LOG.warning(
                "waiting for another job that makes %s (%.0f s)", to_text(str(folder)), seconds
            )
        except OSError:
            yield False
            return
    with held:
        yield True


def _lock(folder: pathlib.Path) -> filelock.BaseFileLock:
    # Without `flock`, filelock falls back to a lock that outlives its holder; fail instead
    return filelock.FileLock(folder.parent / f".{folder.name}.lock", fallback_to_soft=False)


@contextlib.contextmanager
def held_by_first(
    folder: pathlib.Path, claim: Callable[[], T], subject: str = "feature store"
) -> Iterator[T | None]:
    """Lets the first process of a job lock and claim a folder; all processes fail if it fails.

    Args:
      folder: to write to.
      claim: called by the first process under the lock.
      subject: what the folder holds, for errors.

    Yields:
      The result of `claim` in the first process, None in the others.

    Raises:
      UserError: in every process, if the folder could not be locked or claimed.
    """
    with contextlib.ExitStack() as stack:
        claimed, refusal = None, None
        if distributed.is_first():
            try:
                stack.enter_context(exclusive(folder, subject))
                claimed = claim()
            except UserError as error:
                refusal = error
        if not distributed.agree(refusal is None, f"{folder}: locked"):
            raise refusal or UserError(subject, str(folder), "was refused to process 0")
        yield claimed
