"""Extracts all images of a source into a store, resuming where it stopped."""

import concurrent.futures
import logging
from collections.abc import Callable

import ml_collections
import numpy as np

from delg_jax.data import images, skips
from delg_jax.data.sources import ImageSource
from delg_jax.features.extractor import Extractor, Features, in_original_pixels
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress

_LOG = logging.getLogger(__name__)

Box = tuple[float, float, float, float]


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
      store: where features go; its names are those of the source.
      data: the `config.data` tree.
      boxes: what to crop each image to, [x1, y1, x2, y2] in pixels; None for whole images.

    Returns:
      The store, whole.

    Raises:
      UserError: if more than `config.data.max_skipped` images could not be used.
    """
    loader = Loader(source, data, extractor.settings.max_size, boxes)
    missing = store.missing()
    done = len(store) - sum(len(store.chunks[number]) for number in missing)
    title = f"extract {store.folder.name}"
    with concurrent.futures.ThreadPoolExecutor(max(1, data.workers)) as pool:
        ahead = [pool.submit(loader, index) for n in missing[:1] for index in store.chunks[n]]
        with Progress(title, len(store), done=done) as progress:
            for position, number in enumerate(missing):
                loaded = [future.result() for future in ahead]
                following = missing[position + 1 : position + 2]
                ahead = [pool.submit(loader, i) for n in following for i in store.chunks[n]]
                rows = _extract_chunk(loaded, extractor, progress.advance)
                store.write(number, rows, extractor.settings.local_dtype)
    store.finish()
    if missing:
        _LOG.info("%s: %d shapes compiled", title, len(extractor.compiled_shapes))
    skips.report(store.folder, store.skipped(), data.max_skipped)
    return store


def _extract_chunk(
    loaded: list[tuple[np.ndarray, float] | str],
    extractor: Extractor,
    advance: Callable[[int], None],
) -> list[Features | str]:
    rows: list[Features | str] = [item if isinstance(item, str) else "" for item in loaded]
    good = [index for index, item in enumerate(loaded) if not isinstance(item, str)]
    for index, features in zip(good, extractor([loaded[i][0] for i in good]), strict=True):
        rows[index] = in_original_pixels(features, loaded[index][1])
    advance(len(rows))
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

    def __call__(self, index: int) -> tuple[np.ndarray, float] | str:
        """The image and its scale, or the reason why there is none."""
        try:
            image = images.decode(self._source.read(index), *self._limits)
            box = self._boxes[index] if self._boxes else None
            return prepare(image, box, self._max_size)
        except (images.BadImageError, OSError) as error:
            return str(error)


def prepare(image: np.ndarray, box: Box | None, max_size: float) -> tuple[np.ndarray, float]:
    """Crops to a box and shrinks by the official rule: the limit shrinks with the crop.

    A query thereby keeps the resolution that it has inside the full image.

    Args:
      image: uint8 [H, W, 3].
      box: x1, y1, x2, y2 in pixels, or None.
      max_size: pixels, for the full image; 0 for no limit.

    Returns:
      The image and its scale, new size / old size.
    """
    if box is None:
        return images.limit_size(image, max_size)
    cut = images.crop(image, box)
    share = max(cut.shape[:2]) / max(image.shape[:2])
    return images.limit_size(cut, max_size * share)
