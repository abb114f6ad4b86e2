"""The images that `--images` names: a folder, a glob, a list, a tar, or one image.

They are also the database of the data set `images`, whose queries are given by a ground truth.
"""

import collections
import os
import pathlib

import numpy as np

from delg_jax import file_names, text_files
from delg_jax.data import ground_truth, sources
from delg_jax.data.image_files import SUFFIXES, UNDECODABLE, LeftOut, images_below, is_hidden
from delg_jax.data.sources import DataSettings, FileSource, ImageSource, RetrievalData
from delg_jax.errors import UserError

KINDS = (
    "a folder, a glob as 'photos/**/*.jpg', a list of paths (.txt), an uncompressed .tar,"
    " or an image"
)
_WILDCARDS = frozenset("*?[")
_MOST_LISTED = 5
_NOT_EMPTY = f"must have at least one image ({', '.join(SUFFIXES)})"


def open_images(spec: str, subject: str = "--images") -> ImageSource:
    """Lists images without opening them; a bad one shows when it is read.

    - A folder: all files below it with an ending of `image_files.SUFFIXES`, by relative path, see
      `image_files.images_below`; one line says what is left out.
    - A glob: all files that match, whatever their ending, by path relative to the last folder
      before the first wildcard; `**` is any depth. Hidden files match only a pattern with a dot.
    - A list, `.txt`: one path a line, relative to the list, read as `text_files` says; the lines
      are the names. Empty lines and lines that begin with # do not count.
    - An uncompressed tar: its files with an ending of `SUFFIXES`, see `sources.open_tar`.
    - An image: itself.

    All but a list are sorted by name. Names that are not UTF-8 are written as `file_names` says.

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


def is_collection(spec: str) -> bool:
    """Whether `open_images` would take a text as anything but one image."""
    if os.path.isfile(spec):
        return pathlib.Path(spec).suffix.lower() in (".txt", ".tar")
    return os.path.isdir(spec) or (not os.path.exists(spec) and bool(_WILDCARDS & set(spec)))


def retrieval(data: DataSettings) -> RetrievalData:
    """Opens the images of `config.data.root`, and the queries of a ground truth if there is one.

    The ground truth has the layout of Revisited Oxford (`imlist`, `qimlist`, `gnd`). It names
    images as the listing does; images that `imlist` lacks are wrong answers. Queries lie in the
    folder `config.data.root`, or beside the ground truth.

    Args:
      data: which data set it is.

    Returns:
      RetrievalData; no queries if `config.data.ground_truth` is empty.

    Raises:
      UserError: if there are no images, or the ground truth is wrong or names absent images.
    """
    if not data.root:
        rule = f"must name the images of the data set images: {KINDS}"
        raise UserError("config.data.root", data.root, rule)
    database = open_images(data.root, "config.data.root")
    if not data.ground_truth:
        return RetrievalData(database, FileSource(pathlib.Path(), [], np.zeros(0, np.int64)), [])
    root = pathlib.Path(data.root)
    path = root / data.ground_truth
    path = path if path.is_file() else pathlib.Path(data.ground_truth)
    content = ground_truth.read(path)
    numbers = {name: number for number, name in enumerate(database.names)}
    _require_no(path, [name for name in content["imlist"] if name not in numbers], data.root)
    entries = [
        entry
        | {
            part: [numbers[content["imlist"][image]] for image in entry[part]]
            for part in ground_truth.LISTS
        }
        for entry in content["gnd"]
    ]
    queries = content["qimlist"]
    folder = _query_folder(path, (root, path.parent), queries)
    labels = np.full(len(queries), -1, np.int64)
    return RetrievalData(database, FileSource(folder, queries, labels), entries)


def _query_folder(
    path: pathlib.Path, folders: tuple[pathlib.Path, ...], names: list[str]
) -> pathlib.Path:
    """The first folder that has all queries of a ground truth."""
    absent = {
        folder.resolve(): [name for name in names if not file_names.to_path(folder, name).is_file()]
        for folder in folders
        if folder.is_dir()
    }
    best = min(absent, key=lambda folder: len(absent[folder]))
    _require_no(path, absent[best], " or ".join(map(str, absent)))
    return best


def _require_no(path: pathlib.Path, absent: list[str], place: str) -> None:
    if absent:
        more = " ..." if len(absent) > _MOST_LISTED else ""
        rule = f"names {len(absent)} images that are not in {place}: "
        rule += ", ".join(absent[:_MOST_LISTED])
        raise UserError("ground truth", str(path), rule + more)


def _open_file(spec: str, subject: str) -> ImageSource:
    path = pathlib.Path(spec)
    suffix = path.suffix.lower()
    if suffix in SUFFIXES:
        return _files(path.parent, [file_names.to_text(path.name)], spec, subject)
    if suffix in UNDECODABLE:
        raise UserError(subject, spec, f"cannot be decoded: {UNDECODABLE[suffix]}")
    if suffix == ".txt":
        names = _read_list(path, subject)
        return _files(path.parent, names, spec, subject, "must list at least one path")
    if suffix == ".tar":
        left_out = LeftOut()
        source = sources.open_tar(path, subject, left_out)
        if not len(source):
            raise UserError(subject, spec, _not_empty(left_out))
        left_out.log(spec, len(source))
        return source
    tool = sources.tar_unpacker(path.name)
    if tool:
        rule = f"must be uncompressed, so that an image is read without those before; run {tool}"
        raise UserError(subject, spec, rule)
    raise UserError(subject, spec, f"must be {KINDS}")


def _open_folder(spec: str, subject: str) -> FileSource:
    left_out = LeftOut()
    names = images_below(spec, left_out)
    source = _files(pathlib.Path(spec), names, spec, subject, _not_empty(left_out))
    left_out.log(spec, len(names))
    return source


def _not_empty(left_out: LeftOut) -> str:
    return f"{_NOT_EMPTY}; left out: {left_out}" if str(left_out) else _NOT_EMPTY


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
        file_names.to_text(path.relative_to(root).as_posix())
        for path in root.glob(pattern)
        if os.path.isfile(path)
    }
    shown = [name for name in names if with_hidden or not is_hidden(name)]
    return _files(root, sorted(shown), spec, subject, "must match at least one file")


def _read_list(path: pathlib.Path, subject: str) -> list[str]:
    names, lines = [], collections.defaultdict(list)
    for number, line in text_files.lines(text_files.read(path, subject)):
        if not line.startswith("#"):
            name = os.path.expanduser(line)
            names.append(name)
            lines[name].append(number)
    twice = next((name for name in names if len(lines[name]) > 1), None)
    if twice is not None:
        first, second = lines[twice][:2]
        rule = f"must list an image once; lines {first} and {second} are both {twice!r}"
        raise UserError(subject, str(path), rule)
    return names


def _files(
    root: pathlib.Path, names: list[str], spec: str, subject: str, not_empty: str = _NOT_EMPTY
) -> FileSource:
    """A source of names; without any, they break the rule `not_empty`."""
    if not names:
        raise UserError(subject, spec, not_empty)
    return FileSource(root.resolve(), names, np.full(len(names), -1, np.int64))
