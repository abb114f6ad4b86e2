"""Where encoded images come from: one interface for folders and TFDS, random access, picklable."""

import dataclasses
import os
import pathlib
import stat
from collections.abc import Mapping, Sequence
from typing import Protocol

import numpy as np

from delg_jax import file_names, file_stamps
from delg_jax.data.tar_images import check_size


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
        check_size(status.st_size)
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
