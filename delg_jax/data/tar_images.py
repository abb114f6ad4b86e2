"""Images in an uncompressed tar, each read from where it lies; nothing is ever unpacked."""

import dataclasses
import pathlib
import posixpath
import tarfile
from collections.abc import Sequence

import numpy as np

from delg_jax import file_stamps
from delg_jax.data.image_files import LeftOut, is_hidden
from delg_jax.errors import UserError

_UNPACKERS = {
    (".tar.gz", ".tgz"): "gunzip",
    (".tar.xz", ".txz"): "unxz",
    (".tar.bz2", ".tbz2", ".tbz"): "bunzip2",
    (".tar.zst", ".tzst"): "unzstd",
}
_LARGEST = 2**30  # bytes; 100 million pixels of 16-bit RGBA are fewer


@dataclasses.dataclass(frozen=True)
class TarImages:
    """Some members of a tar; any number of threads and processes may read.

    Attributes:
      path: of the tar.
      names: of the images.
      labels: int [N], all -1.
      places: int64 [N, 2], the first byte of each image in the tar and its number of bytes.
    """

    path: pathlib.Path
    names: list[str]
    labels: np.ndarray
    places: np.ndarray

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The bytes of one image."""
        start, size = (int(number) for number in self.places[index])
        check_size(size)
        with self.path.open("rb") as file:
            file.seek(start)
            data = file.read(size)
        if len(data) < size:
            raise OSError(f"{str(self.path)!r} has become shorter since it was listed")
        return data

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Bytes of the images, and times of the tar: those of members say little."""
        found = np.tile(file_stamps.stamps([str(self.path)]), (len(indices), 1))
        if (found[:, 0] >= 0).all():
            found[:, 0] = self.places[np.asarray(indices, np.int64), 1]
        return found


def open_tar(path: pathlib.Path, subject: str, left_out: LeftOut) -> TarImages:
    """Lists the images of a tar from its headers.

    Names are those of the members, without leading `/`, `./` or `../`, so that none leads out of a
    folder that somebody joins it to; odd bytes are written as `file_names` says. Of members with
    one name the last counts, as it does for tar. Hidden names, other endings, links, devices and
    sparse files are left out.

    Args:
      path: of the tar.
      subject: the flag or field that names the tar, for errors.
      left_out: counts what is left out.

    Returns:
      The images, sorted by name; there may be none.

    Raises:
      UserError: if it is not a tar, is compressed, or is truncated.
      OSError: for a file that cannot be read.
    """
    places: dict[str, tuple[int, int]] = {}
    try:
        with tarfile.open(path, "r:", encoding="utf-8") as archive:
            while (member := archive.next()) is not None:
                archive.members.clear()  # type: ignore[attr-defined]  # half a kilobyte each
                if archive.offset <= member.offset:  # a forged size, which would never end
                    raise tarfile.ReadError("a member has a negative size")
                name = _name(member)
                if member.isdir():
                    continue
                if is_hidden(name):
                    left_out.reasons["hidden"] += 1
                elif not left_out.is_image(name):
                    continue
                elif member.isreg() and not member.issparse():
                    places[name] = (member.offset_data, member.size)
                else:
                    places.pop(name, None)
                    left_out.reasons["links, devices or sparse files"] += 1
            _require_end(archive)
    except OSError:
        raise
    except Exception as error:  # headers of a damaged tar can raise anything
        rule = f"must be an uncompressed tar, and whole: {' '.join(str(error).split())}"
        raise UserError(subject, str(path), rule) from error
    names = sorted(places)
    where = np.array([places[name] for name in names], np.int64).reshape(-1, 2)
    return TarImages(path.resolve(), names, np.full(len(names), -1, np.int64), where)


def _name(member: tarfile.TarInfo) -> str:
    text = member.name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return posixpath.normpath(f"/{text}").lstrip("/")


def _require_end(archive: tarfile.TarFile) -> None:
    """Raises a ReadError unless the headers end as a tar ends, with a block of zeros.

    `tarfile` itself takes a damaged header, or the end of the file, for the end of the tar.
    """
    archive.fileobj.seek(archive.offset)
    if archive.fileobj.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise tarfile.ReadError(f"it is truncated or damaged at byte {archive.offset}")


def check_size(size: int) -> None:
    """Raises an OSError for more bytes than an image can have, before they are read."""
    if size > _LARGEST:
        raise OSError(f"{size} bytes, more than {_LARGEST}")


def unpacker(name: str) -> str:
    """The program that uncompresses a tar of this name; empty if it is not compressed."""
    tools = [tool for endings, tool in _UNPACKERS.items() if name.lower().endswith(endings)]
    return tools[0] if tools else ""
