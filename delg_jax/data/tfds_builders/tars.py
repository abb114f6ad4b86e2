"""Tar archives of images: verified by MD5, read member by member, never unpacked to disk."""

import concurrent.futures
import dataclasses
import functools
import hashlib
import logging
import pathlib
import re
import tarfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from delg_jax.data.images import BadImageError
from delg_jax.data.tfds_builders.manifest import Archive
from delg_jax.data.tfds_builders.records import Item
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)
_CHECKERS = 8  # archives hashed at a time; hashing releases the interpreter lock
_LARGEST_MEMBER = 2**28  # bytes
_MD5 = re.compile(r"\b[0-9a-fA-F]{32}\b")

Entry = tuple[int, Mapping[str, Any]]  # label and further features of an image


def verify(archives: Iterable[Archive]) -> None:
    """Compares archives with their published MD5 sums.

    Args:
      archives: tars, each with the file of its sum; those without one are logged, not checked.

    Raises:
      UserError: for an archive that differs, or a file without a sum.
    """
    archives = list(archives)
    pairs = [(tar, sums) for tar, sums in archives if sums is not None]
    if len(pairs) < len(archives):
        _LOG.warning("%d archives have no MD5 file and are not checked", len(archives) - len(pairs))
    if pairs:
        _LOG.info("checking the MD5 sums of %d archives", len(pairs))
    with concurrent.futures.ThreadPoolExecutor(_CHECKERS) as pool:
        list(pool.map(_verify_one, *zip(*pairs, strict=True)) if pairs else ())


def _verify_one(tar: pathlib.Path, sums: pathlib.Path) -> None:
    expected = _MD5.search(sums.read_text(encoding="utf-8", errors="replace"))
    if expected is None:
        raise UserError("MD5 file", str(sums), "must contain an MD5 sum, 32 hexadecimal digits")
    with tar.open("rb") as file:
        found = hashlib.file_digest(file, "md5").hexdigest()
    if expected.group().lower() != found:
        rule = f"is damaged: its MD5 sum is {found}, not {expected.group().lower()}"
        raise UserError("archive", str(tar), f"{rule}; delete it and download it again")


@dataclasses.dataclass(frozen=True)
class TarItems:
    """The images of a split in one archive.

    Attributes:
      path: of the archive.
      entries: returns label and features by id; members with other ids are ignored.
    """

    path: pathlib.Path
    entries: Callable[[], Mapping[str, Entry]]

    def __call__(self) -> Iterator[Item]:
        """Yields items in the order of the archive; use each before asking for the next.

        A member that is a link, or whose path leads outside the archive, is an item without an
        image; so is the rest of a truncated archive.
        """
        entries = self.entries()
        try:
            with tarfile.open(self.path, "r:") as archive:
                for member in archive:
                    if member.isdir():
                        continue
                    fault = _fault(member)
                    name = pathlib.PurePosixPath(member.name).stem
                    if fault:
                        yield Item(f"{self.path.name}:{member.name}", {"image": _refuse(fault)})
                    elif name in entries:
                        label, features = entries[name]
                        load = functools.partial(_read, archive, member)
                        yield Item(name, {"image": load}, label, features)
        except tarfile.TarError as error:
            yield Item(self.path.name, {"image": _refuse(f"is truncated or damaged: {error}")})


def _fault(member: tarfile.TarInfo) -> str:
    """Why a member is not read; empty if it is."""
    path = pathlib.PurePosixPath(member.name)
    if not member.isreg():
        return "is a link or a device, not a file"
    if path.is_absolute() or ".." in path.parts:
        return "has a path outside the archive"
    if member.size > _LARGEST_MEMBER:
        return f"has {member.size} bytes, more than {_LARGEST_MEMBER}"
    return ""


def _read(archive: tarfile.TarFile, member: tarfile.TarInfo) -> bytes:
    try:
        file = archive.extractfile(member)
        if file is None:  # a link or a device, which `_fault` refuses
            raise BadImageError("is not a file")
        return file.read()
    except tarfile.TarError as error:
        raise BadImageError(f"the archive is truncated or damaged: {error}") from error


def _refuse(reason: str) -> Callable[[], bytes]:
    def load() -> bytes:
        raise BadImageError(reason)

    return load
