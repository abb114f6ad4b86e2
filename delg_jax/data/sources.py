"""Where encoded images come from: one interface for files, tars and TFDS, picklable."""

import dataclasses
import os
import pathlib
import posixpath
import stat
import tarfile
from collections.abc import Mapping, Sequence
from typing import Protocol, Self

import ml_collections
import numpy as np

from delg_jax import file_names, file_stamps
from delg_jax.data.image_files import LeftOut, is_hidden
from delg_jax.errors import UserError


@dataclasses.dataclass(frozen=True)
class DataSettings:
    """Which data set, where it is, and how it is prepared; `config.data` has the same names.

    Attributes:
      name: of the data set.
      root: folder of its files; "" for what is prepared or can be downloaded.
      ground_truth: which queries and answers; "" for the usual ones.
      distractors: folder of further database images; "" for none.
      exclude: file of training images to leave out; "" for none.
      tfds_dir: folder of prepared data; "" for the default of TFDS.
      beam_options: options of Apache Beam; "" to prepare in this process.
      split_seed: seed of the choice of validation images.
      validation_share: share of each class, from 0 to below 1.
      synthetic_size: of the rendered world.
      synthetic_seed: of the rendered world.
      max_skipped: bad images that are tolerated.
      min_side: pixels; smaller images are bad.
      max_pixels: larger images are bad.
    """

    name: str
    root: str
    ground_truth: str
    distractors: str
    exclude: str
    tfds_dir: str
    beam_options: str
    split_seed: int
    validation_share: float
    synthetic_size: str
    synthetic_seed: int
    max_skipped: int
    min_side: int
    max_pixels: int

    @classmethod
    def of(cls, data: ml_collections.ConfigDict) -> Self:
        """The settings of `config.data`."""
        world = {"synthetic_size": data.synthetic.size, "synthetic_seed": data.synthetic.seed}
        names = [field.name for field in dataclasses.fields(cls) if field.name not in world]
        return cls(**{name: data[name] for name in names}, **world)


class ImageSource(Protocol):
    """Random access to encoded images.

    Attributes:
      names: of the images, in order.
      labels: int [N], the class of each image, or -1.
    """

    @property
    def names(self) -> list[str]: ...  # noqa: D102

    @property
    def labels(self) -> np.ndarray: ...  # noqa: D102

    def __len__(self) -> int:
        """Number of images."""

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; raises OSError if they cannot be read."""

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Stamps that show, without reading the images, whether they have changed.

        Args:
          indices: of n images.

        Returns:
          int64 [n, 3]: bytes, and when content and file last changed, in nanoseconds; -1 where
          there is no image. Equal stamps mean equal images; different stamps may, too.
        """


@dataclasses.dataclass(frozen=True)
class FileSource:
    """Images that are files.

    Attributes:
      root: folder that the names are relative to.
      names: of the images, with `suffix` still to be added.
      labels: int [N], the class of each image, or -1.
      suffix: file name ending.
    """

    root: pathlib.Path
    names: list[str]
    labels: np.ndarray
    suffix: str = ""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def read(self, index: int) -> bytes:
        """The bytes of one file; an OSError for a pipe, a device or a huge file."""
        path = pathlib.Path(self.path(index))
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"not a file: {str(path)!r}")
        _check_size(status.st_size)
        return path.read_bytes()

    def path(self, index: int) -> str:
        """Path of an image; plain names, of which there may be millions, need no `Path`."""
        name = f"{self.names[index]}{self.suffix}"
        if name.isascii() and "\\" not in name:
            return os.path.join(self.root, name)  # an absolute name stands for itself
        return str(file_names.to_path(self.root, name))

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Size and times of files, int64 [n, 3]."""
        return file_stamps.stamps([self.path(index) for index in indices])


class JoinedSource:
    """One source after another.

    Args:
      first: its images come first.
      second: its images follow.
    """

    def __init__(self, first: ImageSource, second: ImageSource) -> None:
        self._first, self._second = first, second
        self.names = [*first.names, *second.names]
        self.labels = np.concatenate([first.labels, second.labels])

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def place(self, index: int) -> tuple[ImageSource, int]:
        """The source that has an image, and its number there."""
        border = len(self._first)
        return (self._first, index) if index < border else (self._second, index - border)

    def read(self, index: int) -> bytes:
        """The bytes of one image."""
        source, number = self.place(index)
        return source.read(number)

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Those of the sources, int64 [n, 3]."""
        wanted = np.asarray(indices, np.int64)
        found, border = np.empty((len(wanted), 3), np.int64), len(self._first)
        found[wanted < border] = self._first.stamps(wanted[wanted < border].tolist())
        found[wanted >= border] = self._second.stamps((wanted[wanted >= border] - border).tolist())
        return found


class SelectedSource:
    """Some images of a source.

    Args:
      source: of the images.
      indices: int [N], which ones, in their new order.
      labels: int [N], other labels than those of the source; None to keep them.

    Attributes:
      digests: of the encoded bytes of each image; none where the source has none.
    """

    def __init__(
        self, source: ImageSource, indices: np.ndarray, labels: np.ndarray | None = None
    ) -> None:
        self._source, self._indices = source, indices
        self.names = [source.names[index] for index in indices]
        self.labels = source.labels[indices] if labels is None else labels
        every = getattr(source, "digests", [])
        self.digests = [every[index] for index in indices] if every else []

    def __len__(self) -> int:
        """Number of images."""
        return len(self.names)

    def place(self, index: int) -> tuple[ImageSource, int]:
        """The source of an image, and its number there."""
        return self._source, self._indices[index]

    def read(self, index: int) -> bytes:
        """The bytes of one image."""
        return self._source.read(self._indices[index])

    def stamps(self, indices: Sequence[int]) -> np.ndarray:
        """Those of the source, int64 [n, 3]."""
        return self._source.stamps(self._indices[np.asarray(indices, np.int64)].tolist())


def file_of(source: ImageSource, index: int) -> str:
    """Path of the file that is an image; "" if it is none of its own, as in a tar."""
    if isinstance(source, FileSource):
        return source.path(index)
    if isinstance(source, SelectedSource | JoinedSource):
        return file_of(*source.place(index))
    return ""


@dataclasses.dataclass(frozen=True)
class TrainingData:
    """Labelled images to learn from.

    Attributes:
      train: images with labels 0 to num_classes - 1.
      validation: other images of the same classes.
      classes: name of each class.
    """

    train: ImageSource
    validation: ImageSource
    classes: list[str]


@dataclasses.dataclass(frozen=True)
class Landmarks:
    """Which landmarks are shown, where queries are to be named and not only found.

    Attributes:
      database: int64 [N], of each image.
      queries: of each query, none where it shows no landmark.
    """

    database: np.ndarray
    queries: list[list[int]]


@dataclasses.dataclass(frozen=True)
class RetrievalData:
    """A database, queries, and which of the database each query should find.

    Attributes:
      database: N images.
      queries: Q images.
      ground_truth: for each query a dict of `bbx` [x1, y1, x2, y2] in pixels, and `easy`, `hard`,
        `junk`, lists of indices into the database.
      landmarks: None where queries are only to be found.
      answers: by name of each query that was asked, even if it could not be prepared, the names of
        the images to find, or the landmarks; None where `ground_truth` says all.
      skipped: database images that could not be prepared.
    """

    database: ImageSource
    queries: ImageSource
    ground_truth: list[dict]
    landmarks: Landmarks | None = None
    answers: Mapping[str, list] | None = None
    skipped: int = 0

    def ordered(self, names: Sequence[str]) -> "RetrievalData":
        """The same with the database in another order.

        Args:
          names: of all database images, which are unique.

        Returns:
          Data without `landmarks`, `answers` or `skipped`, which such data sets lack.
        """
        if list(names) == self.database.names:
            return self
        before = {name: number for number, name in enumerate(self.database.names)}
        order = np.array([before[name] for name in names], np.int64)
        after = np.argsort(order)
        lists = ("easy", "hard", "junk")
        entries = [
            entry | {part: after[entry[part]].tolist() for part in lists if entry[part]}
            for entry in self.ground_truth
        ]
        return RetrievalData(SelectedSource(self.database, order), self.queries, entries)


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
        _check_size(size)
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


def _check_size(size: int) -> None:
    """Raises an OSError for more bytes than an image can have, before they are read."""
    if size > _LARGEST:
        raise OSError(f"{size} bytes, more than {_LARGEST}")


def tar_unpacker(name: str) -> str:
    """The program that uncompresses a tar of this name; empty if it is not compressed."""
    tools = [tool for endings, tool in _UNPACKERS.items() if name.lower().endswith(endings)]
    return tools[0] if tools else ""
