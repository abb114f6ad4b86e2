"""Which image is which record of a prepared split, and which images were left out.

A shard leaves csv files beside its records; when all shards are done they become one file of the
split. So a split of millions is opened without reading its images.
"""

import dataclasses
import logging
import pathlib
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from delg_jax import file_names, file_stamps
from delg_jax.data import images
from delg_jax.data.tfds_builders import manifest, tables
from delg_jax.data.tfds_builders.manifest import ImageFile
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

_LINE_SECONDS = 10.0
_COLUMNS = ("name", "label", "height", "width")
_DIGEST = "digest"  # of the encoded images; data of earlier versions lack it
_SKIPPED = ("image", "reason")


class _Progress:
    """When the next log line is due, over all shards of this process."""

    def __init__(self) -> None:
        self._last = time.monotonic()

    def is_due(self) -> bool:
        """Whether to write a line now; not on a terminal, where TFDS draws a bar."""
        if time.monotonic() < self._last + _LINE_SECONDS or sys.stderr.isatty():
            return False
        self._last = time.monotonic()
        return True


_PROGRESS = _Progress()


@dataclasses.dataclass(frozen=True)
class Records:
    """The records of a split in their order.

    Attributes:
      names: of the N images.
      labels: int64 [N], -1 where there is none.
      sizes: int64 [N, 2], height and width in pixels.
      digests: of the encoded images; "" in data of earlier versions.
    """

    names: list[str]
    labels: np.ndarray
    sizes: np.ndarray
    digests: list[str]


def write_part(
    folder: pathlib.Path,
    shard: tuple[str, int],
    records: Iterable[tuple[str, int, int, int, str]],
    skipped: Iterable[tuple[str, str]],
    files: Iterable[tuple[str, int, int, str]] = (),
) -> None:
    """Writes what a shard, given by split and number, holds, left out, and which files it read."""
    tables.write(_part(folder, *shard, "records"), (*_COLUMNS, _DIGEST), records)
    tables.write(_part(folder, *shard, "skipped"), _SKIPPED, skipped)
    tables.write(_part(folder, *shard, "files"), manifest.COLUMNS, files)


def merge(folder: pathlib.Path, split: str, shards: int) -> set[str]:
    """Joins the files of all shards of a split to `<split>.csv`.

    Args:
      folder: of the split.
      split: its name.
      shards: their number.

    Returns:
      The names of all records.

    Raises:
      UserError: if two records have one name.
    """
    parts = [_part(folder, split, shard, "records") for shard in range(shards)]
    columns = (*_COLUMNS, _DIGEST)
    rows = [
        tuple(row.text(column) for column in columns)
        for part in parts
        for row in tables.read(part, columns)
    ]
    names = {row[0] for row in rows}
    if len(names) < len(rows):
        rule = f"holds {len(rows) - len(names)} images more than once"
        raise UserError("data set", f"split {split}", rule)
    tables.write(folder / f"{split}.csv", columns, rows)
    for part in parts:
        part.unlink()
    return names


def take_files(folder: pathlib.Path) -> Iterator[tuple]:
    """Path, size, time and digest of each file that the shards read; their lists are removed."""
    seen = set()
    for part in sorted(folder.glob("*.files.csv")):
        for row in tables.read(part, manifest.COLUMNS):
            path = row.text("path")
            if path not in seen:  # two pairs may share an image
                seen.add(path)
                yield tuple(row.text(column) for column in manifest.COLUMNS)
        part.unlink()


def take_skipped(folder: pathlib.Path) -> dict[str, str]:
    """Reasons by name of the images that the shards left out; their files are removed."""
    skipped = {}
    for path in sorted(folder.glob("*.skipped.csv")):
        for row in tables.read(path, _SKIPPED):
            skipped[row.text("image")] = row.text("reason")
        path.unlink()
    return skipped


def read(folder: pathlib.Path, split: str) -> Records:
    """Reads `<split>.csv`; raises a UserError if it is absent or damaged."""
    names, labels, sizes, digests = [], [], [], []
    for row in tables.read(folder / f"{split}.csv", _COLUMNS):
        names.append(row.text("name"))
        labels.append(-1 if row.text("label") == "-1" else row.integer("label"))
        sizes.append((row.integer("height"), row.integer("width")))
        digests.append(row.text(_DIGEST, default=""))
    shape = (len(names), 2)
    return Records(
        names, np.asarray(labels, np.int64), np.asarray(sizes, np.int64).reshape(shape), digests
    )


def _part(folder: pathlib.Path, split: str, shard: int, kind: str) -> pathlib.Path:
    return folder / f"{split}-{shard:05d}.{kind}.csv"


FILE_ITEMS = 2048  # items of a shard of loose files; the writer keeps a shard in memory


@dataclasses.dataclass(frozen=True)
class Item:
    """One example to be.

    Attributes:
      name: of the image, or of the example if it has several images.
      images: for each feature that is an image, what returns its encoded bytes. It raises OSError
        or BadImageError if there is no such image.
      label: class, -1 for none.
      features: all other features but name and label.
    """

    name: str
    images: Mapping[str, Callable[[], bytes]]
    label: int = -1
    features: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Limits:
    """What an image must be.

    Attributes:
      min_side: pixels.
      max_pixels: height times width.
      max_skipped: images left out of a shard before the preparation ends.
    """

    min_side: int
    max_pixels: int
    max_skipped: int


class TooManySkippedError(Exception):
    """Ends a preparation early; the list of skipped images tells the user why."""


@dataclasses.dataclass(frozen=True)
class Shard:
    """Yields the examples of a shard; can be pickled if its items can.

    Attributes:
      folder: where the data are prepared.
      split: name of the split.
      number: of the shard in the split.
      items: returns the items.
      limits: of the images.
      shards: of the split, for the log.
    """

    folder: pathlib.Path
    split: str
    number: int
    items: Callable[[], Iterable[Item]]
    limits: Limits
    shards: int = 1

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields name and example of each item whose images can be used; lists the others."""
        kept: list[tuple] = []
        skipped: list[tuple[str, str]] = []
        files: list[tuple] = []
        for item in self.items():
            if _PROGRESS.is_due():
                place = self.split, self.number + 1, self.shards, len(kept) + len(skipped)
                _LOG.info("prepare %s: shard %d of %d, %d images of it", *place)
            encoded, size, fault = self._load(item, files)
            if fault:
                skipped.append((item.name, fault))
                continue
            content = file_stamps.digest_of_bytes(b"".join(encoded.values()))
            kept.append((item.name, item.label, *size, content))
            features = {"name": item.name, "label": item.label, **item.features}
            yield item.name, {**features, **encoded}
        write_part(self.folder, (self.split, self.number), kept, skipped, files)
        if len(skipped) > self.limits.max_skipped:
            raise TooManySkippedError(f"{len(skipped)} images of a shard cannot be used")

    def _load(
        self, item: Item, files: list[tuple]
    ) -> tuple[dict[str, bytes], tuple[int, int], str]:
        """Encoded images, size of the first in pixels, and what is wrong with one of them.

        What is read of the file of an image, if it is one, is added to `files`.
        """
        encoded, sizes = {}, []
        for feature, load in item.images.items():
            try:
                data = _read(load, files)
                pixels = images.decode(data, self.limits.min_side, self.limits.max_pixels)
            except images.BadImageError as error:
                return {}, (0, 0), _reason(item, feature, str(error))
            except OSError as error:
                return {}, (0, 0), _reason(item, feature, error.strerror or str(error))
            encoded[feature] = data
            sizes.append(pixels.shape[:2])
        return encoded, sizes[0], ""


def _read(load: Callable[[], bytes], files: list[tuple]) -> bytes:
    if not isinstance(load, ImageFile):
        return load()
    path = load.path()
    before = file_stamps.stamp(path)  # so that a change while it is read shows later
    name = file_names.to_text(path.relative_to(load.root).as_posix())
    try:
        data = load()
    except OSError:
        files.append((name, *before))
        raise
    files.append((name, *before._replace(digest=file_stamps.digest_of_bytes(data))))
    return data


def _reason(item: Item, feature: str, reason: str) -> str:
    return reason if len(item.images) == 1 else f"{feature}: {reason}"


@dataclasses.dataclass(frozen=True)
class Listed:
    """Items that are known beforehand, as those of loose files are.

    Attributes:
      items: in their order.
    """

    items: tuple[Item, ...]

    def __call__(self) -> Iterable[Item]:
        """Returns the items."""
        return self.items


def in_shards(items: Iterable[Item]) -> list[Callable[[], Iterable[Item]]]:
    """Cuts a list of items into shards of `FILE_ITEMS`."""
    every = tuple(items)
    return [Listed(every[i : i + FILE_ITEMS]) for i in range(0, len(every), FILE_ITEMS)]
