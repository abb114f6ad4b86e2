"""Contents of folders, to compare whole outputs, and read-only folders."""

import builtins
import contextlib
import errno
import io
import os
import pathlib
from collections.abc import Callable, Iterator

import pytest


def contents(folder):
    """Bytes of every file below a folder, by its path there."""
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@contextlib.contextmanager
def read_only(folder: pathlib.Path) -> Iterator[None]:
    """Makes a folder refuse what Python writes there, as a read-only mount does.

    The contents must be the same afterwards, which finds writers that are not Python.
    """
    below = os.path.join(os.path.realpath(folder), "")
    before = contents(folder)

    def refusing(plain: Callable, writes: Callable[..., bool]) -> Callable:
        def call(path, *args, **kwargs):
            inside = isinstance(path, str | os.PathLike) and os.path.join(
                os.path.realpath(path), ""
            ).startswith(below)
            if inside and writes(*args, **kwargs):
                raise OSError(errno.EROFS, os.strerror(errno.EROFS), str(path))
            return plain(path, *args, **kwargs)

        return call

    def by_flags(flags, *_, **__):
        return bool(flags & (os.O_WRONLY | os.O_RDWR | os.O_CREAT))

    def by_mode(mode="r", *_, **__):
        return any(letter in mode for letter in "wax+")

    with pytest.MonkeyPatch.context() as patch:
        for name in ("mkdir", "unlink", "remove", "rmdir", "rename", "replace", "symlink", "utime"):
            plain = getattr(os, name)
            patch.setattr(os, name, refusing(plain, lambda *_, **__: True))
        patch.setattr(os, "open", refusing(os.open, by_flags))
        opening = refusing(io.open, by_mode)
        patch.setattr(io, "open", opening)
        patch.setattr(builtins, "open", opening)
        yield
    assert contents(folder) == before
