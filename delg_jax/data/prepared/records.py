"""Which image is which record of a prepared split, and which images were left out.

A shard leaves csv files beside its records; when all shards are done they become one file of the
split. So a split of millions is opened without reading its images.
"""

import dataclasses
import pathlib
from collections.abc import Iterable, Iterator

import numpy as np

from delg_jax.data.prepared import manifest, tables
from delg_jax.errors import UserError

_COLUMNS = ("name", "label", "height", "width")
_DIGEST = "digest"  # of the encoded images; data of earlier versions lack it
_SKIPPED = ("image", "reason")


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
