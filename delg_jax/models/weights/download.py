"""Downloads published weights into a cache: resumed, checked, and never half under their name."""

import hashlib
import http.client
import logging
import os
import pathlib
import shutil
import tarfile
import tempfile
import time
import urllib.error
import urllib.request
import zlib
from typing import Any

from delg_jax import locks
from delg_jax.errors import UserError
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

_ATTEMPTS = 5  # connections that may break off before it fails
_SECONDS = 30.0  # without a byte, after which a connection counts as broken
_PIECE = 2**20  # bytes
_ARCHIVE = ".tar.gz"


def cache_folder() -> pathlib.Path:
    """The folder of downloads: $DELG_CACHE, or delg_jax in the user's folder of caches."""
    named = os.environ.get("DELG_CACHE")
    if named:
        return pathlib.Path(named).expanduser()
    caches = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return pathlib.Path(caches).expanduser() / "delg_jax" / "weights"


def download(url: str, target: pathlib.Path, sha256: str = "") -> None:
    """Downloads a file; an archive (.tar.gz) is unpacked into a folder.

    A broken connection is resumed, and so is a killed program by the next call. Other processes
    that want the same file wait for it.

    Args:
      url: of the file, http or https.
      target: file or folder to make, under this name only when it is complete and checked.
      sha256: digest of the file, or its first digits; empty if it is not known.

    Raises:
      UserError: if the server cannot be reached or has no such file, the file has another digest,
        or the cache cannot be written.
    """
    part = target.with_name(f".{target.name}.part")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        with locks.after_others(part):
            if target.exists():
                return
            _LOG.info("downloading %s to %s", url, target.parent)
            _fetch(url, part)
            _check(url, part, sha256)
            if url.endswith(_ARCHIVE):
                _unpack(url, part, target)
            else:
                os.replace(part, target)
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror or error})"
        raise UserError(
            "cache", str(target.parent), f"{rule}; set DELG_CACHE to another"
        ) from error


def _fetch(url: str, part: pathlib.Path) -> None:
    """Appends what is missing to `part`."""
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            if _append(url, part):
                return
            reason = "the connection broke off"
        except urllib.error.HTTPError as error:
            with error:
                rule = f"cannot be downloaded: the server answers {error.code} {error.reason}"
            if error.code < 500:  # asking again will not help
                raise UserError("weights", url, rule) from error
            reason = f"{error.code} {error.reason}"
        except (urllib.error.URLError, TimeoutError, ConnectionError) as error:
            reason = str(getattr(error, "reason", error))
        if attempt < _ATTEMPTS:
            time.sleep(_pause(attempt))
    rule = (
        f"cannot be downloaded ({reason}); the same command resumes, or put the file there by hand"
    )
    raise UserError("weights", url, rule)


def _pause(attempt: int) -> float:
    return 0.25 * 2.0**attempt


def _append(url: str, part: pathlib.Path) -> bool:
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
        size, done = (-(-count // _PIECE) for count in (held + missing, held))
        with (
            part.open("ab" if resumed else "wb") as file,
            Progress(f"download {part.name[1:]}", size, "MB", done) as progress,
        ):
            try:
                while piece := response.read(_PIECE):
                    file.write(piece)
                    progress.advance()
            except http.client.IncompleteRead as error:
                file.write(error.partial)
    return not missing or part.stat().st_size >= held + missing


def _check(url: str, part: pathlib.Path, sha256: str) -> None:
    """Deletes a file of another digest."""
    with part.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if not found.startswith(sha256):
        part.unlink()
        rule = f"must have the SHA-256 {sha256}, not {found}; it was deleted, try again"
        raise UserError("weights", url, rule)
    if not sha256:
        _LOG.info("its publisher names no digest; SHA-256 %s", found)


def _unpack(url: str, archive: pathlib.Path, target: pathlib.Path) -> None:
    """Unpacks an archive whose only folder becomes `target`."""
    with tempfile.TemporaryDirectory(dir=target.parent, prefix=f".{target.name}.") as folder:
        try:
            with tarfile.open(archive) as opened:
                opened.extractall(folder, filter="data")  # nothing outside the folder
        except (tarfile.TarError, EOFError, zlib.error) as error:
            archive.unlink()
            rule = f"must be an intact .tar.gz ({error}); it was deleted, try again"
            raise UserError("weights", url, rule) from error
        inside = list(pathlib.Path(folder).iterdir())
        source = inside[0] if len(inside) == 1 and inside[0].is_dir() else pathlib.Path(folder)
        source.chmod(0o755)
        shutil.move(source, target)
    archive.unlink()
