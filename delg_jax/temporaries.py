"""Temporary files and folders beside outputs; those that killed programs left are removed.

A writer holds a lock on its temporary file as long as it lives, so that a file which can be locked
is one that nobody writes. Where the system has no such locks, nothing is removed.
"""

import contextlib
import os
import pathlib
import re
import secrets
import shutil
from collections.abc import Iterator

try:
    import fcntl
except ImportError:  # on Windows
    fcntl = None  # type: ignore[assignment]

_NAME = re.compile(r"\.(.+)\.[0-9a-f]{8}", re.DOTALL)

# What lay in each folder when this process first wrote there: names by that of the output
_left: dict[pathlib.Path, dict[str, list[str]]] = {}


@contextlib.contextmanager
def beside(path: pathlib.Path, folder: bool = False) -> Iterator[pathlib.Path]:
    """Makes a temporary file or folder inside the block, and removes what others left for `path`.

    Args:
      path: of the output; its folder must exist.
      folder: whether to make a folder.

    Yields:
      `.NAME.xxxxxxxx` beside the output, empty. The block may move it.
    """
    _remove_left(path)
    temporary, handle = _make(path, folder)
    try:
        yield temporary
    finally:
        _remove(temporary)
        if handle is not None:
            if fcntl is not None:  # a child of this process may hold the file open
                with contextlib.suppress(OSError):
                    fcntl.flock(handle, fcntl.LOCK_UN)
            os.close(handle)


def remove_abandoned(folder: pathlib.Path) -> None:
    """Removes the temporary files and folders of killed writers from a folder of ours."""
    for names in _listed(folder).values():
        for name in names:
            _remove_if_abandoned(folder / name)


def _remove_left(path: pathlib.Path) -> None:
    """As `remove_abandoned`, for one output; lists the folder, which may be large, only once."""
    parent = path.parent.absolute()
    if parent not in _left:
        _left[parent] = _listed(parent)
    for name in _left[parent].pop(path.name, []):
        _remove_if_abandoned(parent / name)


def _listed(folder: pathlib.Path) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            if match := _NAME.fullmatch(entry.name):
                found.setdefault(match[1], []).append(entry.name)
    return found


def _make(path: pathlib.Path, folder: bool) -> tuple[pathlib.Path, int | None]:
    """A new file or folder, and its locked descriptor; None where folders cannot be opened."""
    while True:
        temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        # Unlike `tempfile`, with the permissions that the user's umask allows
        if not folder:
            handle = os.open(temporary, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666)
        else:
            temporary.mkdir()
            if fcntl is None:
                return temporary, None
            try:
                handle = os.open(temporary, os.O_RDONLY)
            except FileNotFoundError:
                continue
        if fcntl is None:
            return temporary, handle
        with contextlib.suppress(OSError):
            fcntl.flock(handle, fcntl.LOCK_EX)
        with contextlib.suppress(FileNotFoundError):
            if os.path.samestat(os.fstat(handle), temporary.stat()):
                return temporary, handle
        os.close(handle)  # another process took it for abandoned before it was locked


def _remove_if_abandoned(path: pathlib.Path) -> None:
    if fcntl is None:
        return
    with contextlib.suppress(OSError):  # it is gone, held, or cannot be locked
        access = os.O_RDONLY if path.is_dir() else os.O_RDWR  # NFS locks only what can be written
        handle = os.open(path, access | os.O_NOFOLLOW | os.O_NONBLOCK)
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            _remove(path)
        finally:
            os.close(handle)


def _remove(path: pathlib.Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
