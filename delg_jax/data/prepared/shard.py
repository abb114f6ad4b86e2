"""The examples of one file of prepared data, read when it is written: here or in a Beam worker."""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

from delg_jax.data import images
from delg_jax.data.prepared import records, stamps
from delg_jax.data.prepared.image_files import ImageFile

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
    """

    folder: pathlib.Path
    split: str
    number: int
    items: Callable[[], Iterable[Item]]
    limits: Limits

    def __call__(self) -> Iterator[tuple[str, dict[str, Any]]]:
        """Yields name and example of each item whose images can be used; lists the others."""
        kept, skipped, files = [], [], []
        for item in self.items():
            encoded, size, fault = self._load(item, files)
            if fault:
                skipped.append((item.name, fault))
                continue
            content = stamps.digest_of_bytes(b"".join(encoded.values()))
            kept.append((item.name, item.label, *size, content))
            features = {"name": item.name, "label": item.label, **item.features}
            yield item.name, {**features, **encoded}
        records.write_part(self.folder, (self.split, self.number), kept, skipped, files)
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
    before = stamps.stamp(path)  # so that a change while it is read shows later
    name = path.relative_to(load.root).as_posix()
    try:
        data = load()
    except OSError:
        files.append((name, *before))
        raise
    files.append((name, *before._replace(digest=stamps.digest_of_bytes(data))))
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


def in_shards(items: Iterable[Item]) -> list[Listed]:
    """Cuts a list of items into shards of `FILE_ITEMS`."""
    every = tuple(items)
    return [Listed(every[i : i + FILE_ITEMS]) for i in range(0, len(every), FILE_ITEMS)]
