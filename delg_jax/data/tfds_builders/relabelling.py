"""Images of landmarks become dense labels and a part to learn from and one to validate on."""

import dataclasses
import functools
import hashlib
import math
import pathlib
from collections.abc import Iterable

from delg_jax.data.tfds_builders import tables
from delg_jax.errors import UserError

SPLITS = ("train", "validation")
FILE = "relabelling.csv"
_COLUMNS = ("id", "landmark_id", "label", "split")


@dataclasses.dataclass(frozen=True)
class Labelled:
    """One image.

    Attributes:
      name: of the image.
      landmark: its class as published.
      label: its class, 0 to C - 1.
      split: `train` or `validation`.
    """

    name: str
    landmark: str
    label: int
    split: str


def relabel(images: Iterable[tuple[str, str]], seed: int, share: float) -> list[Labelled]:
    """Splits each class by a draw that depends on the seed and the names, not on their order.

    Of a class of n > 1 images, `share` n go to validation, rounded, but at least one and at most
    n - 1; a class of one image goes to train (80 % and 20 %, section 4.1).

    Args:
      images: name and class of each image; names differ.
      seed: of the draw.
      share: of validation, from 0 to below 1; 0 sends all to train.

    Returns:
      All images, sorted by label and name. Labels follow the classes in their order: by number if
      all are numbers, else by text.

    Raises:
      UserError: if `share` is out of range.
    """
    if not 0 <= share < 1:
        raise UserError("config.data.validation_share", share, "must be from 0 to below 1")
    members: dict[str, list[str]] = {}
    for name, landmark in images:
        members.setdefault(landmark, []).append(name)
    numbers = all(landmark.isascii() and landmark.isdigit() for landmark in members)
    labelled = []
    for label, landmark in enumerate(sorted(members, key=int if numbers else None)):
        names = sorted(members[landmark])
        draws = sorted(names, key=functools.partial(_draw, seed, landmark))
        validation = set(draws[: _validation_count(len(names), share)])
        for name in names:
            labelled.append(Labelled(name, landmark, label, SPLITS[name in validation]))
    return labelled


def _draw(seed: int, landmark: str, name: str) -> bytes:
    return hashlib.sha256(f"{seed}\n{landmark}\n{name}".encode()).digest()


def _validation_count(count: int, share: float) -> int:
    if share == 0:
        return 0
    return min(max(math.floor(share * count + 0.5), 1), count - 1)


def write(folder: pathlib.Path, images: Iterable[Labelled]) -> pathlib.Path:
    """Writes `relabelling.csv` into a folder; returns its path."""
    path = folder / FILE
    rows = ((image.name, image.landmark, image.label, image.split) for image in images)
    tables.write(path, _COLUMNS, rows)
    return path


def read(path: pathlib.Path) -> list[Labelled]:
    """Reads what `write` wrote; raises a UserError if it is damaged."""
    images = []
    for row in tables.read(path, _COLUMNS, key="id"):
        if row.text("split") not in SPLITS:
            raise row.error(f"split must be one of {', '.join(SPLITS)}")
        split, label = row.text("split"), row.integer("label")
        images.append(Labelled(row.text("id"), row.text("landmark_id"), label, split))
    return images


def classes(images: Iterable[Labelled]) -> list[str]:
    """Published name of each class, in the order of the labels."""
    names = {image.label: image.landmark for image in images}
    return [names[label] for label in sorted(names)]
