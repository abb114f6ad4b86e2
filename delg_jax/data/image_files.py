"""Which files of a folder are images: one walk, and one line about what it leaves out."""

import collections
import dataclasses
import importlib.util
import logging
import os
import pathlib

from PIL import features

from delg_jax import file_names

# Images of cameras and of the web. Pillow knows more, but some it recognises in random bytes,
# and for PostScript it starts another program.
ENDINGS = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "WEBP": (".webp",),
    "TIFF": (".tif", ".tiff"),
    "GIF": (".gif",),
    "BMP": (".bmp",),
    "AVIF": (".avif", ".avifs"),
    "JPEG2000": (".jp2", ".j2k", ".jpc", ".jpf", ".jpx", ".j2c"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "HEIF": (".heic", ".heif", ".hif"),
}
_LIBRARIES = {"WEBP": "webp", "AVIF": "avif", "JPEG2000": "jpg_2000"}  # of Pillow, by its names
_HEIF_PACKAGE = "pillow_heif"


def _is_decodable(form: str) -> bool:
    if form == "HEIF":
        return importlib.util.find_spec(_HEIF_PACKAGE) is not None
    return form not in _LIBRARIES or bool(features.check(_LIBRARIES[form]))


def _remedy(form: str) -> str:
    if form == "HEIF":
        return "the package pillow-heif decodes them"
    return f"this Pillow was built without {_LIBRARIES[form]}"


FORMATS = tuple(form for form in ENDINGS if _is_decodable(form))
# In any letter case; what a file holds, not its ending, decides how it is decoded
SUFFIXES = tuple(ending for form in FORMATS for ending in ENDINGS[form])
# Ending: what is needed to decode such files here
UNDECODABLE = {
    ending: _remedy(form)
    for form, endings in ENDINGS.items()
    if form not in FORMATS
    for ending in endings
}

if "HEIF" in FORMATS:
    importlib.import_module(_HEIF_PACKAGE).register_heif_opener()


# Folders in which systems keep thumbnails and deleted files, beside those that begin with a dot
_OF_THE_SYSTEM = frozenset(
    {
        "__MACOSX",
        "@eaDir",
        "#recycle",
        "$RECYCLE.BIN",
        "System Volume Information",
        "lost+found",
        "Thumbs.db",
        "desktop.ini",
    }
)
_MOST_LISTED = 5

_LOG = logging.getLogger(__name__)


@dataclasses.dataclass
class LeftOut:
    """Counts the files and folders that are left out, by reason.

    Attributes:
      reasons: number of files or folders, by reason.
      endings: number of files whose ending is not that of an image, by ending in lower case.
    """

    reasons: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)
    endings: collections.Counter[str] = dataclasses.field(default_factory=collections.Counter)

    def is_image(self, name: str) -> bool:
        """Whether the ending of a file is that of an image; counts it if it is not."""
        suffix = pathlib.PurePosixPath(name).suffix.lower()
        if suffix not in SUFFIXES:
            self.endings[suffix] += 1
        return suffix in SUFFIXES

    def __str__(self) -> str:
        """As in `2 hidden, 3 of other endings (.txt 3)`; empty if nothing was left out."""
        other = {end: n for end, n in self.endings.items() if end not in UNDECODABLE}
        parts = [f"{count} {reason}" for reason, count in sorted((+self.reasons).items())]
        if other:
            listed = sorted(other.items(), key=lambda item: (-item[1], item[0]))
            kinds = [f"{end or 'none'} {count}" for end, count in listed[:_MOST_LISTED]]
            more = " ..." if len(listed) > _MOST_LISTED else ""
            parts.append(f"{sum(other.values())} of other endings ({', '.join(kinds)}{more})")
        for ending in sorted(self.endings.keys() & UNDECODABLE.keys()):
            parts.append(f"{self.endings[ending]} {ending} ({UNDECODABLE[ending]})")
        return ", ".join(parts)

    def log(self, place: str, taken: int) -> None:
        """Says in one line what was left out of a place, if anything was."""
        if text := str(self):
            _LOG.warning("%s: %d images; left out: %s", file_names.to_text(place), taken, text)


def is_hidden(name: str) -> bool:
    """Whether a file, or a folder on its path, is hidden or belongs to the system.

    Such names begin with a dot (`.DS_Store`, `._a.jpg`, `.ipynb_checkpoints`), or are those that
    Windows, macOS and network drives use (`Thumbs.db`, `__MACOSX`, `@eaDir`).
    """
    return any(part.startswith(".") or part in _OF_THE_SYSTEM for part in name.split("/"))


def images_below(top: str | os.PathLike[str], left_out: LeftOut) -> list[str]:
    """All images below a folder, at any depth.

    Links are followed, but each folder is taken once: a link to a folder that is taken already, or
    that holds `top`, is left out. Hidden names and endings that are not of `SUFFIXES` are, too.

    Args:
      top: the folder.
      left_out: counts what is left out.

    Returns:
      Paths relative to `top` with `/` between folders, sorted; odd bytes as `file_names` says.

    Raises:
      OSError: for a folder that cannot be read.
    """
    walk = _Walk(os.fspath(top), left_out)
    walk.through("", os.fspath(top))
    while walk.links:  # after all real folders, so that names do not depend on the order
        links, walk.links = sorted(walk.links), []
        for name, path in links:
            walk.follow(name, path)
    return sorted(walk.images)


class _Walk:
    """A walk through the folders below `top`."""

    def __init__(self, top: str, left_out: LeftOut) -> None:
        self.images: list[str] = []
        self.links: list[tuple[str, str]] = []  # name and path of links to folders
        self._left_out = left_out
        self._seen: set[tuple[int, int]] = set()
        self._holders = {_identity(p) for p in pathlib.Path(os.path.realpath(top)).parents}

    def through(self, prefix: str, folder: str) -> None:
        """Takes what lies in a folder and below it; links to folders wait."""
        waiting = [(prefix, folder)]
        while waiting:
            prefix, folder = waiting.pop()
            identity = _identity(folder)
            if identity in self._seen:  # of two links to one folder
                self._left_out.reasons["links to folders that are taken already"] += 1
                continue
            self._seen.add(identity)
            with os.scandir(folder) as entries:
                for entry in entries:
                    if is_hidden(entry.name):
                        self._left_out.reasons["hidden"] += 1
                    elif entry.is_dir(follow_symlinks=False):
                        waiting.append((f"{prefix}{file_names.to_text(entry.name)}/", entry.path))
                    else:
                        self._take(prefix, entry)

    def follow(self, name: str, path: str) -> None:
        """Takes what lies below a link to a folder."""
        identity = _identity(path)
        if identity in self._seen or identity in self._holders:
            self._left_out.reasons["links to folders that are taken already"] += 1
        else:
            self.through(f"{name}/", path)

    def _take(self, prefix: str, entry: os.DirEntry) -> None:
        name = prefix + file_names.to_text(entry.name)
        # os.path, unlike the entry, raises nothing for a link to itself
        if entry.is_symlink() and os.path.isdir(entry.path):
            self.links.append((name, entry.path))
        elif not self._left_out.is_image(entry.name):
            return
        elif os.path.isfile(entry.path) if entry.is_symlink() else entry.is_file():
            self.images.append(name)
        else:
            kind = "links that lead nowhere" if entry.is_symlink() else "pipes, sockets or devices"
            self._left_out.reasons[kind] += 1


def _identity(path: str | os.PathLike[str]) -> tuple[int, int]:
    status = os.stat(path)
    return status.st_dev, status.st_ino
