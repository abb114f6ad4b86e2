"""Outputs in a working directory: written atomically, with the configuration that made them."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections
import numpy as np

from delg_jax import array_files, configuration, json_files, migrations, temporaries
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

CONFIG_FILE = "config.json"
# Errors of writing to a read-only place
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
FORMAT = 1  # of all files in a working directory; increased when readers must tell versions apart

_TEXTS = json_files.each(json_files.text)
_DESCRIPTION = json_files.fields(
    {
        "format": json_files.count,
        "config": json_files.each(json_files.anything),
        "extra": _TEXTS,
    },
    {"sources": _TEXTS},
)


def root_of(workdir: str | pathlib.Path) -> pathlib.Path:
    """The folder that `workdir` names; a UserError if it is on another file system (`gs://`)."""
    return pathlib.Path(configuration.local_path("workdir", os.fspath(workdir)))


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path`, and moves it there if the block succeeds.

    The content is on the disk before the name is, also after a power failure.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with temporaries.beside(path) as temporary:
        yield temporary
        flush(temporary)
        move(temporary, path)
    flush_entries(path.parent)


def move(source: pathlib.Path, target: pathlib.Path) -> None:
    """Gives a file or folder its final name, and replaces the file that has it.

    NFS repeats a request whose answer was lost. If it was done the first time, the second finds no
    `source`, which is no error here.
    """
    before = source.stat()
    try:
        os.replace(source, target)
    except FileNotFoundError:
        try:
            done = os.path.samestat(before, target.stat())
        except FileNotFoundError:
            done = False
        if not done:
            raise


def flush(path: pathlib.Path) -> None:
    """Waits until a file, or all files below a folder, are on the disk."""
    for one in [path, *path.rglob("*")] if path.is_dir() else [path]:
        if one.is_dir():
            flush_entries(one)
        else:
            with one.open("r+b") as file:
                os.fsync(file.fileno())


def flush_entries(folder: pathlib.Path) -> None:
    """Waits until the names in a folder are on the disk, where the system can do that."""
    with contextlib.suppress(OSError):  # of Windows, and of file systems that cannot
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)


@contextlib.contextmanager
def where_writable(what: str) -> Iterator[None]:
    """Skips the rest of the block, with a warning, if the place is read-only.

    Args:
      what: is written; begins the warning.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        _LOG.warning("%s: not written, the place is read-only (%s)", what, error.strerror)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file atomically."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes an object as a JSON file with a checksum, atomically; see `json_files`."""
    write_text(path, json.dumps(json_files.signed(content), indent=2) + "\n")


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed `.npz` file of named arrays atomically."""
    with replacing(path) as temporary:
        array_files.save_arrays(temporary, arrays)


def claim(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    overwrite: bool = False,
    extra: dict[str, str] | None = None,
) -> None:
    """Prepares `folder` for an output of this configuration.

    The whole resolved configuration is stored, but only the sections that decide the output are
    compared: after a change of re-ranking, features are reused.

    Args:
      folder: of the output; created if absent.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the output.
      overwrite: whether to delete an output of another configuration instead of refusing it.
      extra: whatever else decides the output, by name, for example a digest of weights.

    Raises:
      UserError: if the folder holds an output of another configuration (lists the difference), or
        cannot be created.
    """
    path = folder / CONFIG_FILE
    wanted = {**configuration.flatten(config, sections), **(extra or {})}
    temporaries.remove_abandoned(folder)
    if path.is_file():
        changes = _changes(path, sections, wanted, unreadable=overwrite)
        if not changes:
            return
        if not overwrite:
            rule = "was made by another configuration; --overwrite replaces it, or use another "
            rule += f"--workdir. It differs in {'; '.join(changes)}"
            raise UserError("workdir", str(folder), rule)
        shutil.rmtree(folder)
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
    describe(folder, config, sections, extra)


def describe(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    extra: Mapping[str, str] | None = None,
    sources: Mapping[str, str] | None = None,
) -> None:
    """Writes the description of the output in `folder`, and replaces an existing one.

    Args:
      folder: of the output.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the output.
      extra: whatever else decides it, by name.
      sources: digests of the inputs, by name; see `sources`.
    """
    content = {
        "format": FORMAT,
        "config": configuration.flatten(config),
        "sections": list(sections),
        "extra": dict(extra or {}),
        "sources": dict(sources or {}),
    }
    write_json(folder / CONFIG_FILE, content)


def sources(folder: pathlib.Path) -> dict[str, str]:
    """Digests of the inputs of the output in `folder`; {} if they were not stored.

    Raises:
      UserError: if there is no output, or its description is damaged.
    """
    return _read(folder / CONFIG_FILE)["sources"]


def claim_usable(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    use: Callable[[], T],
    overwrite: bool = False,
    extra: dict[str, str] | None = None,
) -> T:
    """Like `claim`, for an output that may be damaged or made from other images.

    Args:
      folder: of the output.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the output.
      use: opens or makes it; raises a UserError if it cannot be used.
      overwrite: whether to delete an output that cannot be used.
      extra: whatever else decides it.

    Returns:
      What `use` returned.
    """
    claim(folder, config, sections, overwrite, extra)
    try:
        return use()
    except UserError:
        if not overwrite:
            raise
    shutil.rmtree(folder)
    claim(folder, config, sections, overwrite, extra)
    return use()


def is_of(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    extra: dict[str, str] | None = None,
) -> bool:
    """Whether `claim` with the same arguments would find its output and change nothing."""
    path = folder / CONFIG_FILE
    wanted = {**configuration.flatten(config, sections), **(extra or {})}
    return path.is_file() and not _changes(path, sections, wanted, unreadable=True)


def stored_config(folder: pathlib.Path) -> dict[str, Any]:
    """The flattened configuration of the output in `folder`; a UserError if there is none."""
    return migrations.completed(_read(folder / CONFIG_FILE)["config"])


def _changes(
    path: pathlib.Path, sections: tuple[str, ...], wanted: dict[str, Any], unreadable: bool
) -> list[str]:
    """How a stored configuration differs; a damaged one differs if `unreadable`, else it raises."""
    try:
        stored = _read(path)
    except UserError as error:
        if unreadable:
            return [str(error)]
        raise
    fields = configuration.within(stored["config"], sections)
    found = {**migrations.completed(fields, wanted), **stored["extra"]}
    return configuration.difference(found, wanted)


def _read(path: pathlib.Path) -> dict[str, Any]:
    rule = f"must be a configuration of format {FORMAT}"
    try:
        content = json_files.read(path, "workdir", _DESCRIPTION)
        if content is not None and content["format"] == FORMAT:
            return {"sources": {}, **content, "config": migrations.renamed(content["config"])}
    except UserError as error:
        rule += f" ({error.rule})"
    raise UserError("workdir", str(path), f"{rule}; --overwrite makes the output again")
