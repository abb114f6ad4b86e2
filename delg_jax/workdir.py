"""Artefacts: whole under their final name or absent, with the configuration that made them."""

import contextlib
import errno
import json
import logging
import os
import pathlib
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping
from typing import Any, TypeVar

import ml_collections
import numpy as np

from delg_jax import array_files, configuration, json_files, migrations
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

T = TypeVar("T")

CONFIG_FILE = "config.json"
# What writing raises where only reading is allowed
READ_ONLY = (errno.EROFS, errno.EACCES, errno.EPERM)
FORMAT = 1  # of everything under a working directory; raised when a reader must tell them apart

_TEXTS = json_files.each(json_files.text)
_DESCRIPTION = json_files.fields(
    {
        "format": json_files.count,
        "config": json_files.each(json_files.anything),
        "extra": _TEXTS,
    },
    {"sources": _TEXTS},
)


@contextlib.contextmanager
def replacing(path: pathlib.Path) -> Iterator[pathlib.Path]:
    """Yields a temporary path beside `path` and moves it there if the block ends well."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = pathlib.Path(name)
    try:
        yield temporary
        temporary.chmod(0o644)
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


@contextlib.contextmanager
def where_writable(what: str) -> Iterator[None]:
    """Leaves out the rest of the block where only reading is allowed, and says so in a line.

    Args:
      what: is written, as the subject of the line.
    """
    try:
        yield
    except OSError as error:
        if error.errno not in READ_ONLY:
            raise
        _LOG.warning("%s: not written, because the place is read-only (%s)", what, error.strerror)


def write_text(path: pathlib.Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: pathlib.Path, content: Mapping[str, Any]) -> None:
    """Writes an object as a JSON file with a checksum, whole or not at all; see `json_files`."""
    write_text(path, json.dumps(json_files.signed(content), indent=2) + "\n")


def write_arrays(path: pathlib.Path, arrays: Mapping[str, np.ndarray]) -> None:
    """Writes an uncompressed `.npz` file of named arrays, whole or not at all."""
    with replacing(path) as temporary:
        array_files.save_arrays(temporary, arrays)


def claim(
    folder: pathlib.Path,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    overwrite: bool = False,
    extra: dict[str, str] | None = None,
) -> None:
    """Makes `folder` the place of an artefact of this configuration.

    The whole resolved configuration is stored. Only the sections that decide the artefact are
    compared, so that a changed re-ranking finds the features of before.

    Args:
      folder: of the artefact; created if absent.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the artefact.
      overwrite: whether an artefact of another configuration is deleted instead of refused.
      extra: further things that decide it, by name, for example a digest of weights.

    Raises:
      UserError: if the folder holds an artefact of another configuration, listing the difference,
        or cannot be made.
    """
    path = folder / CONFIG_FILE
    wanted = {**configuration.flatten(config, sections), **(extra or {})}
    if path.is_file():
        changes = _changes(path, sections, wanted, unreadable=overwrite)
        if not changes:
            return
        if not overwrite:
            rule = "was made by another configuration; --overwrite replaces it, or take another "
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
    """Writes what the output in `folder` is made of, over what was said before.

    Args:
      folder: of the output.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the output.
      extra: further things that decide it, by name.
      sources: digests of what it is made from, by name; see `sources`.
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
    """Digests of what the output in `folder` was made from; {} if it was not said.

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
    """As `claim`, of an artefact that may be damaged or of other images.

    Args:
      folder: of the artefact.
      config: the whole tree.
      sections: dotted prefixes of the fields that decide the artefact.
      use: opens or makes it; raises a UserError for one that cannot be used.
      overwrite: whether one that cannot be used is deleted, too.
      extra: further things that decide it.

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
    """Whether `claim` of the same arguments would find its artefact and change nothing."""
    path = folder / CONFIG_FILE
    wanted = {**configuration.flatten(config, sections), **(extra or {})}
    return path.is_file() and not _changes(path, sections, wanted, unreadable=True)


def stored_config(folder: pathlib.Path) -> dict[str, Any]:
    """The flattened configuration of the artefact in `folder`; a UserError if there is none."""
    return migrations.completed(_read(folder / CONFIG_FILE)["config"])


def _changes(
    path: pathlib.Path, sections: tuple[str, ...], wanted: dict[str, Any], unreadable: bool
) -> list[str]:
    """How a stored configuration differs; a damaged one does if `unreadable`, else is an error."""
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
    raise UserError("workdir", str(path), f"{rule}; --overwrite makes what it describes again")
