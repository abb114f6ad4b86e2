"""Origins: which image each row of a store was extracted from, and which images have changed."""

import concurrent.futures
import functools
import logging
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.data.sources import ImageSource
from delg_jax.features.storage.rows import DELETED, ORIGIN, WRITTEN
from delg_jax.features.store import FeatureStore
from delg_jax.file_stamps import has_content
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

_BLOCK = 256  # images whose contents are compared between updates of the progress

Box = tuple[float, float, float, float]


class Comparison(NamedTuple):
    """How current images differ from those that the rows of a store were extracted from.

    Attributes:
      changed: rows int64 [n] whose image or box has changed.
      same: rows int64 [m] whose image is the same, but has another place or time, or no origin yet.
      origins: new origins of the rows `same`, `ORIGIN` [m].
      absent: rows int64 [k] whose image cannot be read, so that it cannot be compared.
      unknown: number of rows without an origin.
    """

    changed: np.ndarray
    same: np.ndarray
    origins: np.ndarray
    absent: np.ndarray
    unknown: int


class CurrentImages:
    """The images of a store as they are now.

    Args:
      source: the images.
      boxes: that each is cropped to, [x1, y1, x2, y2] in pixels; None for whole images.
      workers: threads that read images.
    """

    def __init__(
        self, source: ImageSource, boxes: Sequence[Box] | None = None, workers: int = 1
    ) -> None:
        self._source, self._boxes = source, boxes
        self._workers = max(1, workers)
        self._read: dict[tuple[int, bytes], bool | None] = {}

    def compare(self, store: FeatureStore) -> Comparison:
        """Compares stamps and boxes; reads only images whose stamp differs.

        Args:
          store: its images may be a subset of those of the source, or the reverse.

        Returns:
          The comparison, without rows that are deleted or missing.
        """
        images = rows_to_images(store, self._source.names)
        rows = np.flatnonzero((images >= 0) & ((store.states() & (WRITTEN | DELETED)) == WRITTEN))
        before, images = store.origins()[rows], images[rows]
        stamps = self._stamps[images]
        known, digested = before["known"] == 1, before["content"].any(axis=1)
        there = stamps[:, 0] >= 0
        moved = known & ~_equal(before["box"], self._boxes_of(images)).all(axis=1)
        differs = known & there & (before["stamp"] != stamps).any(axis=1) & ~moved
        # If the content is unknown, a file that was only copied must not count as changed
        alike = (before["stamp"][:, :2] == stamps[:, :2]).all(axis=1)
        changed = moved | (differs & ~digested & ~alike)
        doubtful = np.flatnonzero(differs & digested)
        contents = [content.tobytes() for content in before["content"][doubtful]]
        has_same = self._have_contents(images[doubtful].tolist(), contents)
        same = np.zeros(len(rows), bool)
        for number, answer in zip(doubtful.tolist(), has_same, strict=True):
            if answer is None:
                there[number] = False
            else:
                same[number] = answer
                changed[number] |= not answer
        update = np.flatnonzero((same | (differs & ~digested & alike) | ~known) & there)
        origins = before[update].copy()
        origins["known"], origins["stamp"] = 1, stamps[update]
        origins["box"] = self._boxes_of(images[update])
        absent = known & ~there & ~moved & (before["stamp"][:, 0] >= 0)
        unknown = int(np.sum(~known & there))
        return Comparison(rows[changed], rows[update], origins, rows[absent], unknown)

    @functools.cached_property
    def _stamps(self) -> np.ndarray:
        return self._source.stamps(range(len(self._source)))

    def _boxes_of(self, images: np.ndarray) -> np.ndarray:
        if self._boxes is None:
            return np.full((len(images), 4), np.nan)
        return np.array(self._boxes, np.float64).reshape(-1, 4)[images]

    def _have_contents(self, images: list[int], contents: list[bytes]) -> list[bool | None]:
        """Whether image files have the contents of these digests; None if one cannot be read."""
        pairs = list(zip(images, contents, strict=True))
        unread = [pair for pair in pairs if pair not in self._read]
        if unread:
            with (
                concurrent.futures.ThreadPoolExecutor(self._workers) as pool,
                Progress("compare images with the store", len(unread)) as progress,
            ):
                for start in range(0, len(unread), _BLOCK):
                    block = unread[start : start + _BLOCK]
                    answers = pool.map(self._has_content, block)
                    self._read.update(zip(block, answers, strict=True))
                    progress.advance(len(block))
        return [self._read[pair] for pair in pairs]

    def _has_content(self, pair: tuple[int, bytes]) -> bool | None:
        image, content = pair
        try:
            return has_content(self._source.read(image), content)
        except OSError:
            return None


def origin(stamp: np.ndarray, content: str, box: Box | None) -> np.ndarray:
    """The origin of one row.

    Args:
      stamp: of the image, see `ImageSource.stamps`.
      content: digest of all of the file, or empty if it could not be read.
      box: that the image was cropped to, or None.

    Returns:
      `ORIGIN` [].
    """
    record = np.zeros((), ORIGIN)
    record["known"], record["stamp"] = 1, stamp
    if content:
        record["content"] = np.frombuffer(bytes.fromhex(content), np.uint8)
    record["box"] = np.nan if box is None else box
    return record


def rows_to_images(store: FeatureStore, names: Sequence[str]) -> np.ndarray:
    """Finds the image of each row in a source.

    Images of the same name are matched in order: the first row of a name is its first image.

    Args:
      store: any store.
      names: of the images of the source, in order.

    Returns:
      Index of the image, int64 [rows]; -1 for deleted images and those that the source lacks.
    """
    images = np.full(len(store.states()), -1, np.int64)
    kept = np.flatnonzero((store.states() & DELETED) == 0)
    if store.names == list(names):
        images[kept] = np.arange(len(kept))
        return images
    found = {key: image for image, key in enumerate(_numbered(names))}
    images[kept] = [found.get(key, -1) for key in _numbered(store.names)]
    return images


def log_changes(store: FeatureStore, comparison: Comparison) -> None:
    """Logs which images are extracted again, and which could not be compared."""
    if len(comparison.changed):
        text = "%s: %d images or their boxes have changed and are extracted again, first %s"
        count, first = len(comparison.changed), _first(store, comparison.changed)
        _LOG.info(text, store.folder, count, first)
    if len(comparison.absent):
        text = "%s: %d of %d images cannot be read, first %s; their stored features are used"
        count, first = len(comparison.absent), _first(store, comparison.absent)
        _LOG.warning(text, store.folder, count, len(store), first)
    if comparison.unknown:
        text = "%s: an earlier version kept no times and digests of %d images; they are taken as "
        _LOG.info(text + "unchanged", store.folder, comparison.unknown)


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


def _first(store: FeatureStore, rows: np.ndarray) -> str:
    return store.row_names()[int(rows[0])]
