"""Where encoded images come from: one interface for folders and TFDS, random access, picklable."""

import dataclasses
import pathlib
import stat
from typing import Protocol

import numpy as np

from delg_jax import file_names
from delg_jax.data.tar_images import check_size


class ImageSource(Protocol):
    """Random access to encoded images.

    Attributes:
      names: of the images, in order.
      labels: int [N], the class of each image, or -1.
    """

    names: list[str]
    labels: np.ndarray

    def __len__(self) -> int:
        """Number of images."""

    def read(self, index: int) -> bytes:
        """The encoded bytes of one image; raises OSError if they cannot be read."""


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
        """The bytes of one file; of a pipe, a device or a giant an OSError, which reads nothing."""
        path = file_names.to_path(self.root, f"{self.names[index]}{self.suffix}")
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):
            raise OSError(f"not a file: {str(path)!r}")
        check_size(status.st_size)
        return path.read_bytes()


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

    def read(self, index: int) -> bytes:
        """The bytes of one image."""
        if index < len(self._first):
            return self._first.read(index)
        return self._second.read(index - len(self._first))


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
    """

    database: ImageSource
    queries: ImageSource
    ground_truth: list[dict]
    landmarks: Landmarks | None = None
