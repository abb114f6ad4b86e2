"""Outputs in a working directory: written atomically, with the configuration that made them."""

import contextlib
import dataclasses
import errno
import json
import logging
import os
import pathlib
import shutil
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self, TypeVar

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


def user_cache() -> pathlib.Path:
    """This program's folder in the user's folder of caches, which need not exist.

    Raises:
      UserError: without XDG_CACHE_HOME and without a home folder.
    """
    named = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(configuration.local_path("XDG_CACHE_HOME", named)) / "delg_jax"


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


@dataclasses.dataclass(frozen=True)
class Output:
    """An output and what it is made from.

    The whole resolved configuration is stored, but only the sections that decide the output are
    compared: after a change of re-ranking, features are reused.

    Attributes:
      folder: of the output.
      config: all fields by dotted path, as JSON values.
      sections: dotted prefixes of the fields that decide the output.
      extra: whatever else decides it, by name, for example a digest of weights.
    """

    folder: pathlib.Path
    config: dict[str, Any]
    sections: tuple[str, ...]
    extra: dict[str, str]

    @classmethod
    def of(
        cls,
        folder: pathlib.Path,
        config: ml_collections.ConfigDict,
        sections: tuple[str, ...],
        extra: Mapping[str, str] | None = None,
    ) -> Self:
        """The output of a whole tree `config`; further arguments as the attributes."""
        return cls(folder, configuration.flatten(config), sections, dict(extra or {}))

    def is_there(self) -> bool:
        """Whether `claim` would find the output and change nothing."""
        path = self.folder / CONFIG_FILE
        return path.is_file() and not self._changes(path, unreadable=True)

    def claim(self, overwrite: bool = False) -> None:
        """Prepares the folder, which is created if absent.

        Args:
          overwrite: whether to delete an output of another configuration instead of refusing it.

        Raises:
          UserError: if the folder holds an output of another configuration (lists the difference),
            or cannot be created.
        """
        path = self.folder / CONFIG_FILE
        temporaries.remove_abandoned(self.folder)
        if path.is_file():
            changes = self._changes(path, unreadable=overwrite)
            if not changes:
                return
            if not overwrite:
                rule = "was made by another configuration; --overwrite replaces it, or use another "
                rule += f"--workdir. It differs in {'; '.join(changes)}"
                raise UserError("workdir", str(self.folder), rule)
            shutil.rmtree(self.folder)
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            rule = f"must be a folder that can be written ({error.strerror})"
            raise UserError("workdir", str(self.folder), rule) from error
        self.describe()

    def claim_usable(self, use: Callable[[], T], overwrite: bool = False) -> T:
        """Like `claim`, for an output that may be damaged or made from other images.

        Args:
          use: opens or makes it; raises a UserError if it cannot be used.
          overwrite: whether to delete an output that cannot be used.

        Returns:
          What `use` returned.
        """
        self.claim(overwrite)
        try:
            return use()
        except UserError:
            if not overwrite:
                raise
        shutil.rmtree(self.folder)
        self.claim(overwrite)
        return use()

    def describe(self, sources: Mapping[str, str] | None = None) -> None:
        """Writes the description of the output, and replaces an existing one.

        Args:
          sources: digests of the inputs, by name; see `workdir.sources`.
        """
        content = {
            "format": FORMAT,
            "config": self.config,
            "sections": list(self.sections),
            "extra": self.extra,
            "sources": dict(sources or {}),
        }
        write_json(self.folder / CONFIG_FILE, content)

    def _changes(self, path: pathlib.Path, unreadable: bool) -> list[str]:
        """How a stored description differs; a damaged one differs if `unreadable`, else raises."""
        try:
            stored = _read(path)
        except UserError as error:
            if unreadable:
                return [str(error)]
            raise
        wanted = {**configuration.within(self.config, self.sections), **self.extra}
        fields = configuration.within(stored["config"], self.sections)
        found = {**migrations.completed(fields, wanted), **stored["extra"]}
        return configuration.difference(found, wanted)


def sources(folder: pathlib.Path) -> dict[str, str]:
    """Digests of the inputs of the output in `folder`; {} if they were not stored.

    Raises:
      UserError: if there is no output, or its description is damaged.
    """
    return _read(folder / CONFIG_FILE)["sources"]


def stored_config(folder: pathlib.Path) -> dict[str, Any]:
    """The flattened configuration of the output in `folder`; a UserError if there is none."""
    return migrations.completed(_read(folder / CONFIG_FILE)["config"])


def _read(path: pathlib.Path) -> dict[str, Any]:
    rule = f"must be a configuration of format {FORMAT}"
    try:
        content = json_files.read(path, "workdir", _DESCRIPTION)
        if content is not None and content["format"] == FORMAT:
            return {"sources": {}, **content, "config": migrations.renamed(content["config"])}
    except UserError as error:
        rule += f" ({error.rule})"
    raise UserError("workdir", str(path), f"{rule}; --overwrite makes the output again")
