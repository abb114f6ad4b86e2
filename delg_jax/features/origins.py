"""What the features of each image were made from, and which images are others by now."""

import concurrent.futures
import functools
import hashlib
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.data.sources import ImageSource
from delg_jax.features.storage.rows import CONTENT_BYTES, DELETED, ORIGIN, WRITTEN
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

_READ_TOGETHER = 256  # images whose contents are compared before progress is shown

Box = tuple[float, float, float, float]


class Comparison(NamedTuple):
    """How the images of a store differ from those that its features were made from.

    Attributes:
      changed: rows int64 [n] of the store whose image, or box, is another.
      noted: rows int64 [m] whose image is the same, but was read elsewhere, or touched.
      origins: what is to be kept of `noted`, `ORIGIN` [m].
      absent: rows int64 [k] whose image cannot be reached, so that nothing is known.
      unknown: number of rows of which nobody kept what they were made from.
    """

    changed: np.ndarray
    noted: np.ndarray
    origins: np.ndarray
    absent: np.ndarray
    unknown: int


class Origins:
    """The images that a store is to be made from, as they are now.

    Args:
      source: the images.
      boxes: what each is cropped to, [x1, y1, x2, y2] in pixels; None for whole images.
      workers: images that are read at a time.
    """

    def __init__(
        self, source: ImageSource, boxes: Sequence[Box] | None = None, workers: int = 1
    ) -> None:
        self.source, self.boxes = source, boxes
        self._workers = max(1, workers)
        self._contents: dict[int, bytes] = {}

    def of(self, index: int, stamp: np.ndarray, content: bytes) -> np.ndarray:
        """The origin of one image, `ORIGIN` []; `content` as of `content_of`, or empty."""
        origin = np.zeros((), ORIGIN)
        origin["known"], origin["stamp"] = 1, stamp
        origin["content"] = np.frombuffer(content.ljust(CONTENT_BYTES, b"\0"), np.uint8)
        origin["box"] = np.nan if self.boxes is None else self.boxes[index]
        return origin

    def compare(self, store: FeatureStore) -> Comparison:
        """Compares stamps and boxes, and the contents of images whose stamp is another.

        Args:
          store: some of whose images are among those of the source.

        Returns:
          The comparison; of images that are deleted or still missing it says nothing.
        """
        places = self._places(store)
        rows = np.flatnonzero((places >= 0) & ((store.states() & (WRITTEN | DELETED)) == WRITTEN))
        before, places = store.origins()[rows], places[rows]
        stamps = self._stamps[places]
        known, has_content = before["known"] == 1, before["content"].any(axis=1)
        there = stamps[:, 0] >= 0
        moved = known & ~_equal(before["box"], self._boxes(places)).all(axis=1)
        differs = known & there & (before["stamp"] != stamps).any(axis=1) & ~moved
        # Where the content is unknown, a file that was only copied must not count as another
        alike = (before["stamp"][:, :2] == stamps[:, :2]).all(axis=1)
        changed = moved | (differs & ~has_content & ~alike)
        doubtful = np.flatnonzero(differs & has_content)
        contents = self._read([int(place) for place in places[doubtful]])
        same = np.zeros(len(rows), bool)
        for number, content in zip(doubtful.tolist(), contents, strict=True):
            if content is None:
                there[number] = False
            else:
                same[number] = content == before["content"][number].tobytes()
                changed[number] |= not same[number]
        noted = np.flatnonzero((same | (differs & ~has_content & alike) | ~known) & there)
        origins = before[noted].copy()
        origins["known"], origins["stamp"] = 1, stamps[noted]
        origins["box"] = self._boxes(places[noted])
        absent = known & ~there & ~moved & (before["stamp"][:, 0] >= 0)
        unknown = int(np.sum(~known & there))
        return Comparison(rows[changed], rows[noted], origins, rows[absent], unknown)

    @functools.cached_property
    def _stamps(self) -> np.ndarray:
        return self.source.stamps(range(len(self.source)))

    def _boxes(self, places: np.ndarray) -> np.ndarray:
        if self.boxes is None:
            return np.full((len(places), 4), np.nan)
        return np.array(self.boxes, np.float64).reshape(-1, 4)[places]

    def _places(self, store: FeatureStore) -> np.ndarray:
        return places_of(store, self.source.names)

    def _read(self, places: list[int]) -> list[bytes | None]:
        """Digests of contents; None of what cannot be read."""
        unread = [place for place in places if place not in self._contents]
        if unread:
            with (
                concurrent.futures.ThreadPoolExecutor(self._workers) as pool,
                Progress("compare images with those of before", len(unread)) as progress,
            ):
                for start in range(0, len(unread), _READ_TOGETHER):
                    block = unread[start : start + _READ_TOGETHER]
                    found = zip(block, pool.map(self._content, block), strict=True)
                    self._contents.update(found)
                    progress.advance(len(block))
        return [self._contents[place] for place in places]

    def _content(self, place: int) -> bytes | None:
        try:
            return content_of(self.source.read(place))
        except OSError:
            return None


def content_of(data: bytes) -> bytes:
    """What identifies the bytes of an image file: 16 bytes, never zeros."""
    return hashlib.blake2b(data, digest_size=CONTENT_BYTES).digest()


def places_of(store: FeatureStore, names: Sequence[str]) -> np.ndarray:
    """Where the images of rows stand among images of a source.

    Images of one name are told apart by their order: the first row of a name is its first image.

    Args:
      store: of any of the images.
      names: of the images of the source, in order.

    Returns:
      int64 [rows of the store], -1 of deleted images and of those that are not in the source.
    """
    places = np.full(len(store.states()), -1, np.int64)
    kept = np.flatnonzero((store.states() & DELETED) == 0)
    if store.names == list(names):
        places[kept] = np.arange(len(kept))
        return places
    found = {key: place for place, key in enumerate(_numbered(names))}
    places[kept] = [found.get(key, -1) for key in _numbered(store.names)]
    return places


def _numbered(names: Sequence[str]) -> list[tuple[str, int]]:
    """Names, each with the number of equal ones before it."""
    seen: dict[str, int] = {}
    numbered = []
    for name in names:
        numbered.append((name, seen.get(name, 0)))
        seen[name] = numbered[-1][1] + 1
    return numbered


def _equal(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    return (one == other) | (np.isnan(one) & np.isnan(other))


def say(store: FeatureStore, found: Comparison) -> None:
    """Says in a line each what is extracted again, and what could not be looked at."""
    if len(found.changed):
        text = "%s: %d images or their boxes have changed and are extracted again, first %s"
        _LOG.info(text, store.folder, len(found.changed), _first(store, found.changed))
    if len(found.absent):
        text = "%s: %d of %d images are not there, first %s; what was extracted of them is used"
        count, first = len(found.absent), _first(store, found.absent)
        _LOG.warning(text, store.folder, count, len(store), first)
    if found.unknown:
        text = "%s: of %d images an earlier version kept no time and no digest; they are taken to "
        _LOG.info(text + "be as they were", store.folder, found.unknown)


def _first(store: FeatureStore, rows: np.ndarray) -> str:
    return store.row_names()[int(rows[0])]
