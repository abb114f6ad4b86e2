"""Extracts images of a source into runs of a store, decoding the next while one is computed."""

import concurrent.futures
import logging
from collections.abc import Callable, Sequence
from typing import NamedTuple

import ml_collections
import numpy as np

from delg_jax.data import images
from delg_jax.data.sources import ImageSource
from delg_jax.features.extractor import Extractor, in_original_pixels
from delg_jax.features.origins import Box, Origins, content_of, places_of
from delg_jax.features.storage.rows import Row
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import fill

_LOG = logging.getLogger(__name__)


class Loaded(NamedTuple):
    """An image that is ready for the network.

    Attributes:
      image: uint8 [H, W, 3], shrunk to the size limit.
      scale: size of `image` / size of the original.
      size: rows and columns of the original.
    """

    image: np.ndarray
    scale: float
    size: tuple[int, int]


def extract_to_store(
    source: ImageSource,
    extractor: Extractor,
    store: FeatureStore,
    data: ml_collections.ConfigDict,
    boxes: list[Box] | None = None,
) -> FeatureStore:
    """Fills what is missing in a store.

    Args:
      source: the images.
      extractor: the network and its pyramid.
      store: where features go; its images are among those of the source.
      data: the `config.data` tree.
      boxes: what to crop each image to, [x1, y1, x2, y2] in pixels; None for whole images.

    Returns:
      The store, whole.

    Raises:
      UserError: if more than `config.data.max_skipped` images could not be used.
    """
    runs = RunExtractor(source, extractor, store, data, boxes)
    title = f"extract {store.folder.name}"
    fill(store, runs, title, data.max_skipped)
    if extractor.compiled_shapes:
        _LOG.info("%s: %d shapes compiled", title, len(extractor.compiled_shapes))
    return store


class RunExtractor:
    """Extracts runs of rows of one store; arguments as of `extract_to_store`."""

    def __init__(
        self,
        source: ImageSource,
        extractor: Extractor,
        store: FeatureStore,
        data: ml_collections.ConfigDict,
        boxes: list[Box] | None = None,
    ) -> None:
        self._load = Loader(source, data, extractor.settings.max_size, boxes)
        self._extractor, self._store = extractor, store
        self._workers = max(1, data.workers)
        self._origins = Origins(source, boxes)
        # Rows of deleted images may have no place; they are never missing
        self._places = places_of(store, source.names)

    def __call__(self, runs: Sequence[range], advance: Callable[[int], None]) -> None:
        """Writes runs; `advance` is called with the number of images done."""
        with concurrent.futures.ThreadPoolExecutor(self._workers) as pool:
            ahead = self._submit(pool, runs[0])
            for run, following in zip(runs, [*runs[1:], range(0)], strict=True):
                loaded, origins = zip(*(future.result() for future in ahead), strict=True)
                ahead = self._submit(pool, following)
                sizes = [(0, 0) if isinstance(item, str) else item.size for item in loaded]
                self._store.write(
                    run, self._rows(loaded), np.array(sizes, np.int32), np.stack(origins)
                )
                advance(len(run))

    def _submit(self, pool: concurrent.futures.Executor, run: range) -> list:
        return [pool.submit(self._load_with_origin, int(self._places[row])) for row in run]

    def _load_with_origin(self, index: int) -> tuple[Loaded | str, np.ndarray]:
        """An image or why there is none, and what it is made from, `ORIGIN` []."""
        source = self._origins.source
        stamp = source.stamps([index])[0]  # first, so that a change while it is read is noticed
        loaded, content = self._load.with_content(index)
        return loaded, self._origins.of(index, stamp, content)

    def _rows(self, loaded: Sequence[Loaded | str]) -> list[Row]:
        rows: list[Row] = [item if isinstance(item, str) else "" for item in loaded]
        good = [index for index, item in enumerate(loaded) if not isinstance(item, str)]
        found = self._extractor([loaded[index].image for index in good])
        for index, features in zip(good, found, strict=True):
            rows[index] = in_original_pixels(features, loaded[index].scale)
        return rows


class Loader:
    """Reads, decodes, crops and shrinks one image by its index.

    Args:
      source: the images.
      data: the `config.data` tree.
      max_size: pixels, see `prepare`.
      boxes: what to crop each image to, or None.
    """

    def __init__(
        self,
        source: ImageSource,
        data: ml_collections.ConfigDict,
        max_size: float,
        boxes: list[Box] | None,
    ) -> None:
        self._source, self._max_size, self._boxes = source, max_size, boxes
        self._limits = (data.min_side, data.max_pixels)

    def __call__(self, index: int) -> Loaded | str:
        """The image, or the reason why there is none."""
        return self.with_content(index)[0]

    def with_content(self, index: int) -> tuple[Loaded | str, bytes]:
        """As when called, and `content_of` the file; empty if it could not be read."""
        content = b""
        try:
            data = self._source.read(index)
            content = content_of(data)
            image = images.decode(data, *self._limits)
            box = self._boxes[index] if self._boxes else None
            return prepare(image, box, self._max_size), content
        except (images.BadImageError, OSError) as error:
            return " ".join(str(error).split()) or type(error).__name__, content


def prepare(image: np.ndarray, box: Box | None, max_size: float) -> Loaded:
    """Crops to a box and shrinks by the official rule: the limit shrinks with the crop.

    A query thereby keeps the resolution that it has inside the full image.

    Args:
      image: uint8 [H, W, 3].
      box: x1, y1, x2, y2 in pixels, or None.
      max_size: pixels, for the full image; 0 for no limit.

    Returns:
      The image, its scale, and its size before.
    """
    if box is None:
        return Loaded(*images.limit_size(image, max_size), image.shape[:2])
    cut = images.crop(image, box)
    share = max(cut.shape[:2]) / max(image.shape[:2])
    return Loaded(*images.limit_size(cut, max_size * share), cut.shape[:2])
