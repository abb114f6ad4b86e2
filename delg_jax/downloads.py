"""Downloads published files: resumed, checked, and never half under their name."""

import contextlib
import hashlib
import http.client
import logging
import os
import pathlib
import shutil
import tarfile
import time
import urllib.error
import urllib.request
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from delg_jax import locks, temporaries
from delg_jax.errors import UserError
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

_ATTEMPTS = 5  # connections that may break off before it fails
_SECONDS = 30.0  # without a byte, after which a connection counts as broken
_PIECE = 2**20  # bytes

# Called with the url, the archive and the target; makes the target
Unpack = Callable[[str, pathlib.Path, pathlib.Path], None]


def download(
    url: str,
    target: pathlib.Path,
    digest: str = "",
    unpack: Unpack | None = None,
    advance: Callable[[int], None] | None = None,
) -> None:
    """Downloads a file.

    A broken connection is resumed, and so is a killed program by the next call. Other processes
    that want the same file wait for it.

    Args:
      url: of the file, http or https; redirections are followed.
      target: file or folder to make, under this name only when it is complete and checked.
      digest: SHA-256 of the file, its first digits, or `md5:` and its MD5 sum; empty if unknown.
      unpack: makes the target of an archive, which is then deleted; None to keep the file.
      advance: called with the number of bytes that arrived; None for a progress bar of its own.

    Raises:
      UserError: if the server cannot be reached or has no such file, or the file is damaged.
      OSError: if the target cannot be written.
    """
    part = part_of(target)
    target.parent.mkdir(parents=True, exist_ok=True)
    with locks.after_others(part):
        if target.exists():
            return
        if advance is None:
            _LOG.info("downloading %s to %s", url, target.parent)
        _fetch(url, part, advance)
        _check(url, part, digest)
        if unpack is None:
            os.replace(part, target)
        else:
            unpack(url, part, target)
            part.unlink()


def part_of(target: pathlib.Path) -> pathlib.Path:
    """The file that holds what has arrived of `target`."""
    return target.with_name(f".{target.name}.part")


def size(url: str) -> int | None:
    """Bytes of a file as its server gives them, without downloading it; None if it does not."""
    request = urllib.request.Request(url, method="HEAD")
    try:
        with urllib.request.urlopen(request, timeout=_SECONDS) as response:
            length = response.headers.get("Content-Length") or ""
    except (OSError, http.client.HTTPException):  # errors of the server and network among them
        return None
    return int(length) if length.isascii() and length.isdigit() else None


def _fetch(url: str, part: pathlib.Path, advance: Callable[[int], None] | None) -> None:
    """Appends what is missing to `part`."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if _append(url, part, advance):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            with error:
                rule = f"cannot be downloaded: the server answers {error.code} {error.reason}"
            if error.code < 500:  # asking again will not help
                raise UserError("download", url, rule) from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error))
        except http.client.HTTPException as error:
            reason = f"{type(error).__name__} {error}"
        if attempt < _ATTEMPTS:
            time.sleep(_pause(attempt))
    rule = (
        f"cannot be downloaded ({reason}); the same command resumes, or put the file there by hand"
    )
    raise UserError("download", url, rule)


def _pause(attempt: int) -> float:
    return 0.25 * 2.0**attempt


def _append(url: str, part: pathlib.Path, advance: Callable[[int], None] | None) -> bool:
    """Downloads from the end of `part` on; returns whether it is complete."""
    held = part.stat().st_size if part.exists() else 0
    request = urllib.request.Request(url, headers={"Range": f"bytes={held}-"} if held else {})
    try:
        response: Any = urllib.request.urlopen(request, timeout=_SECONDS)
    except urllib.error.HTTPError as error:
        if error.code != 416:  # of what the server has, nothing is missing, or it has less
            raise
        with error:
            whole = (error.headers.get("Content-Range") or "").rpartition("/")[2]
        if whole == str(held):
            return True
        part.unlink()
        return False
    with response:
        resumed = response.status == 206
        held = held if resumed else 0  # a server that cannot resume sends the whole file
        missing = int(response.headers.get("Content-Length") or 0)
        with part.open("ab" if resumed else "wb") as file:
            if advance is not None:
                _copy(response, file, advance)
            else:
                total, done = (-(-count // _PIECE) for count in (held + missing, held))
                with Progress(f"download {part.name[1:]}", total, "MB", done) as progress:
                    _copy(response, file, lambda _: progress.advance())
    return not missing or part.stat().st_size >= held + missing


def _copy(response: Any, file: Any, advance: Callable[[int], None]) -> None:
    try:
        while piece := response.read(_PIECE):
            file.write(piece)
            advance(len(piece))
    except http.client.IncompleteRead as error:
        file.write(error.partial)


def _check(url: str, part: pathlib.Path, digest: str) -> None:
    """Deletes a file of another digest."""
    algorithm, colon, wanted = digest.rpartition(":")
    algorithm, name = ("md5", "MD5 sum") if colon and algorithm == "md5" else ("sha256", "SHA-256")
    with part.open("rb") as file:
        found = hashlib.file_digest(file, algorithm).hexdigest()
    if not found.startswith(wanted.lower()):
        part.unlink()
        rule = f"must have the {name} {wanted}, not {found}; it was deleted, try again"
        raise UserError("download", url, rule)
    if not digest:
        _LOG.info("%s: its publisher names no digest; SHA-256 %s", url, found)


def unpack_folder(url: str, archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpacks an archive whose only folder becomes `target`; a bad archive is deleted."""
    with _unpacked(url, archive) as folder:
        inside = list(folder.iterdir())
        source = inside[0] if len(inside) == 1 and inside[0].is_dir() else folder
        source.chmod(0o755)
        shutil.move(source, target)


def unpack_file(url: str, archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpacks an archive whose only file becomes `target`; a bad archive is deleted."""
    with _unpacked(url, archive) as folder:
        files = [path for path in folder.rglob("*") if path.is_file()]
        if len(files) != 1:
            archive.unlink()
            rule = f"must be an archive of one file, not {len(files)}; it was deleted"
            raise UserError("download", url, rule)
        os.replace(files[0], target)


def unpack_files(url: str, archive: pathlib.Path, target: pathlib.Path, flat: bool) -> None:
    """Moves the files of an archive into a folder; a bad archive is deleted and adds none.

    Args:
      url: for errors.
      archive: .tar.gz or .tar.
      target: folder, which other archives may share. An archive may hold it, or what is in it.
      flat: whether to move all files into the folder itself, without the folders of the archive.
    """
    with _unpacked(url, archive) as folder:
        root = folder / target.name if os.listdir(folder) == [target.name] else folder
        for path in sorted(root.rglob("*")):
            if path.is_file() and not path.is_symlink():
                place = target / (path.name if flat else path.relative_to(root))
                place.parent.mkdir(parents=True, exist_ok=True)
                os.replace(path, place)


@contextlib.contextmanager
def _unpacked(url: str, archive: pathlib.Path) -> Iterator[pathlib.Path]:
    """An archive unpacked into a temporary folder beside it."""
    with temporaries.beside(archive, folder=True) as folder:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")  # nothing outside the folder
        except (tarfile.TarError, EOFError, zlib.error) as error:
            archive.unlink()
            rule = f"must be an intact archive ({error}); it was deleted, try again"
            raise UserError("download", url, rule) from error
        yield folder
