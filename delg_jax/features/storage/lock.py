"""One writer at a time: a lock on a folder that the system gives back when its holder dies."""

import contextlib
import pathlib
from collections.abc import Callable, Iterator
from typing import TypeVar

import filelock

from delg_jax import distributed
from delg_jax.errors import UserError

T = TypeVar("T")


@contextlib.contextmanager
def exclusive(folder: pathlib.Path, subject: str = "feature store") -> Iterator[None]:
    """Holds a folder for as long as the block lasts.

    Args:
      folder: that is written to. The lock is the file `.FOLDER.lock` beside it, which stays.
      subject: what the folder is, for errors.

    Raises:
      UserError: if another job holds it, or it cannot be written or locked.
    """
    # Without `flock`, filelock would take a lock that outlives its holder: refuse instead.
    path = folder.parent / f".{folder.name}.lock"
    lock = filelock.FileLock(path, blocking=False, fallback_to_soft=False)
    try:
        held = lock.acquire()
    except filelock.Timeout as error:
        rule = "is being written by another job; wait for it, or take another --workdir"
        raise UserError(subject, str(folder), rule) from error
    except OSError as error:
        rule = f"must be a folder that can be written and locked ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
    with held:
        yield


@contextlib.contextmanager
def held_by_first(
    folder: pathlib.Path, claim: Callable[[], T], subject: str = "feature store"
) -> Iterator[T | None]:
    """Lets the first process of a job lock a folder and claim it; none goes on unless it could.

    Args:
      folder: that is written to.
      claim: what the first process does under the lock.
      subject: what the folder is, for errors.

    Yields:
      What `claim` returned in the first process, None in the others.

    Raises:
      UserError: if another job holds the folder, or it could not be claimed; in every process.
    """
    with contextlib.ExitStack() as stack:
        claimed, refusal = None, None
        if distributed.is_first():
            try:
                stack.enter_context(exclusive(folder, subject))
                claimed = claim()
            except UserError as error:
                refusal = error
        if not distributed.agree(refusal is None):
            raise refusal or UserError(subject, str(folder), "was refused to process 0")
        yield claimed
