"""One writer at a time: a lock on a folder that the system gives back when its holder dies."""

import contextlib
import fcntl
import pathlib
from collections.abc import Iterator

from delg_jax.errors import UserError


@contextlib.contextmanager
def exclusive(folder: pathlib.Path) -> Iterator[None]:
    """Holds a folder for as long as the block lasts.

    Args:
      folder: that is written to. The lock is the file `.FOLDER.lock` beside it, which stays.

    Raises:
      UserError: if another job holds it, or it cannot be written.
    """
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        file = (folder.parent / f".{folder.name}.lock").open("w")
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
    with file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            rule = "is being written by another job; wait for it, or take another --workdir"
            raise UserError("feature store", str(folder), rule) from error
        yield
