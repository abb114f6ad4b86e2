"""The images that `--images` names: a folder, a glob, a list, a tar, or one picture."""

import collections
import logging
import os
import pathlib
from collections.abc import Iterator

import numpy as np

from delg_jax.data import folder, tar_images
from delg_jax.data.sources import FileSource, ImageSource
from delg_jax.errors import UserError

SUFFIXES = (*folder.SUFFIXES, ".gif", ".avif", ".jp2")
KINDS = (
    "a folder, a glob as 'photos/**/*.jpg', a list of paths (.txt), an uncompressed .tar,"
    " or a picture"
)
_WILDCARDS = frozenset("*?[")
_NOT_EMPTY = f"must have at least one image ({', '.join(SUFFIXES)})"

_LOG = logging.getLogger(__name__)


def open_images(spec: str, subject: str = "--images") -> ImageSource:
    """Lists images without opening them; a bad one shows when it is read.

    - A folder: all files below it with an ending of `SUFFIXES`, by relative path. Hidden files are
      left out; so are, with a warning, links to folders and to files outside.
    - A glob: all files that match, whatever their ending, by path relative to the last folder
      before the first wildcard; `**` is any depth. Hidden files match only a pattern with a dot.
    - A list, `.txt`: one path a line in UTF-8, relative to the list; the lines are the names.
      Empty lines and lines that begin with # do not count.
    - An uncompressed tar: its files with an ending of `SUFFIXES`, see `tar_images.open_tar`.
    - A picture: itself.

    All but a list are sorted by name.

    Args:
      spec: what the user gave.
      subject: the flag or field it was given to, for errors.

    Returns:
      The images, labels -1; small, and picklable for worker processes.

    Raises:
      UserError: for what is none of these, cannot be read, or has no images.
    """
    try:
        if os.path.isdir(spec):
            return _open_folder(spec, subject)
        if os.path.isfile(spec):
            return _open_file(spec, subject)
        if not os.path.exists(spec) and _WILDCARDS.intersection(spec):
            return _open_glob(spec, subject)
    except (OSError, ValueError) as error:  # the latter for a name that no system takes
        raise UserError(subject, spec, f"cannot be read: {error}") from error
    raise UserError(subject, spec, f"does not exist; it must be {KINDS}")


def _open_file(spec: str, subject: str) -> ImageSource:
    path = pathlib.Path(spec)
    if path.suffix.lower() in SUFFIXES:
        return _files(path.parent, [path.name], spec, subject)
    if path.suffix.lower() == ".txt":
        names = _read_list(path, subject)
        return _files(path.parent, names, spec, subject, "must list at least one path")
    if path.suffix.lower() == ".tar":
        source = tar_images.open_tar(path, SUFFIXES, subject)
        if not len(source):
            raise UserError(subject, spec, _NOT_EMPTY)
        return source
    tool = tar_images.unpacker(path.name)
    if tool:
        rule = f"must be uncompressed, so that an image is read without those before; run {tool}"
        raise UserError(subject, spec, rule)
    raise UserError(subject, spec, f"must be {KINDS}")


def _open_folder(spec: str, subject: str) -> FileSource:
    top = os.path.realpath(spec)
    names, left_out = [], 0
    for entry in _walk(top):
        if entry.is_symlink() and not _is_file_below(top, entry.path):
            left_out += 1
        elif entry.is_file() and pathlib.PurePath(entry.name).suffix.lower() in SUFFIXES:
            names.append(entry.path.removeprefix(os.path.join(top, "")))
    if left_out:
        _LOG.warning("%s: left out %d links to folders or out of it", spec, left_out)
    return _files(pathlib.Path(top), sorted(names), spec, subject)


def _walk(top: str) -> Iterator[os.DirEntry]:
    """All that lies below a folder and is neither hidden nor a folder; links are not followed."""
    waiting = [top]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.name.startswith("."):
                    continue
                if entry.is_dir(follow_symlinks=False):
                    waiting.append(entry.path)
                else:
                    yield entry


def _is_file_below(top: str, path: str) -> bool:
    target = os.path.realpath(path)
    return os.path.isfile(target) and os.path.commonpath([top, target]) == top


def _open_glob(spec: str, subject: str) -> FileSource:
    parts = pathlib.PurePath(spec).parts
    fixed = next(n for n, part in enumerate(parts) if _WILDCARDS.intersection(part))
    root, wild = pathlib.Path(*parts[:fixed]).resolve(), parts[fixed:]
    if any("**" in part and part != "**" for part in wild):
        raise UserError(subject, spec, "must have ** only as a whole folder, as in a/**/b.jpg")
    # the last ** matches only folders, or also files, by the version of Python
    pattern = "/".join((*wild, "*") if wild[-1] == "**" else wild)
    with_hidden = any(part.startswith(".") for part in wild)
    names = {
        path.relative_to(root).as_posix() for path in root.glob(pattern) if os.path.isfile(path)
    }
    shown = [name for name in names if with_hidden or not tar_images.is_hidden(name)]
    return _files(root, sorted(shown), spec, subject, "must match at least one file")


def _read_list(path: pathlib.Path, subject: str) -> list[str]:
    try:
        text = path.read_bytes().decode("utf-8-sig")
    except UnicodeDecodeError as error:
        rule = f"must be a list in UTF-8, which its byte {error.start} is not"
        raise UserError(subject, str(path), rule) from error
    if "\0" in text:
        raise UserError(subject, str(path), "must be a list of paths, and has a zero byte")
    lines = [line.removesuffix("\r") for line in text.split("\n")]
    names = [line for line in lines if line.strip() and not line.startswith("#")]
    twice = [name for name, count in collections.Counter(names).items() if count > 1]
    if twice:
        first, second = [number for number, line in enumerate(lines, 1) if line == twice[0]][:2]
        rule = f"must list an image once; lines {first} and {second} are both {twice[0]!r}"
        raise UserError(subject, str(path), rule)
    return names


def _files(
    root: pathlib.Path, names: list[str], spec: str, subject: str, not_empty: str = _NOT_EMPTY
) -> FileSource:
    """A source of checked names; without any, they break the rule `not_empty`."""
    if not names:
        raise UserError(subject, spec, not_empty)
    for name in names:
        try:
            name.encode()
        except UnicodeEncodeError as error:
            rule = f"must have names in UTF-8; {name!a} is not, rename it"
            raise UserError(subject, spec, rule) from error
    return FileSource(root.resolve(), names, np.full(len(names), -1, np.int64))
