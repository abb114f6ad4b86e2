"""Extraction of the images of a source into a store."""

import concurrent.futures
import logging
from collections.abc import Callable, Sequence

import numpy as np

from delg_jax import system_errors
from delg_jax.data import images
from delg_jax.data.images import Loaded, prepare
from delg_jax.data.sources import ImageSource
from delg_jax.features.extractor import Extractor, in_original_pixels
from delg_jax.features.origins import Box, content_digest, origin, rows_to_images
from delg_jax.features.storage.rows import Row
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import missing_rows

_LOG = logging.getLogger(__name__)


class Loader:
    """Reads, decodes, crops and shrinks images.

    Args:
      source: the images.
      boxes: that each is cropped to, [x1, y1, x2, y2] in pixels; None for whole images.
      max_size: pixels of the longer side, see `prepare`; 0 for no limit.
      min_side: pixels; smaller images are skipped.
      max_pixels: larger images are skipped.

    Attributes:
      source: the images.
    """

    def __init__(
        self,
        source: ImageSource,
        boxes: Sequence[Box] | None,
        max_size: float,
        min_side: int,
        max_pixels: int,
    ) -> None:
        self.source = source
        self._boxes, self._max_size = boxes, max_size
        self._min_side, self._max_pixels = min_side, max_pixels

    def load(self, index: int) -> tuple[Loaded | str, np.ndarray]:
        """Loads one image.

        Args:
          index: of the image in the source.

        Returns:
          The image, or the reason why it cannot be used; and its origin, `ORIGIN` [].
        """
        stamp = self.source.stamps([index])[0]  # before reading, so that a change is noticed later
        box = self._boxes[index] if self._boxes is not None else None
        content = b""
        loaded: Loaded | str
        try:
            data = self.source.read(index)
            content = content_digest(data)
            image = images.decode(data, self._min_side, self._max_pixels)
            loaded = prepare(image, box, self._max_size)
        except (images.BadImageError, OSError) as error:
            if system_errors.is_shortage(error):  # every image would be skipped
                raise
            loaded = " ".join(str(error).split()) or type(error).__name__
        return loaded, origin(stamp, content, box)


def extract_to_store(
    loader: Loader, extractor: Extractor, store: FeatureStore, workers: int, max_skipped: int
) -> None:
    """Extracts the images whose rows are missing in a store.

    Args:
      loader: of the images, which include those of the store.
      extractor: the network and its pyramid.
      store: open for writing; whole afterwards.
      workers: threads that load images.
      max_skipped: maximum number of images that may be skipped.

    Raises:
      UserError: if more images were skipped.
    """
    title = f"extract {store.folder.name}"
    with missing_rows(store, title, max_skipped) as (runs, advance):
        extract_rows(runs, loader, extractor, store, workers, advance)
    if extractor.compiled_shapes:
        _LOG.info("%s: %d shapes compiled", title, len(extractor.compiled_shapes))


def extract_rows(
    runs: Sequence[range],
    loader: Loader,
    extractor: Extractor,
    store: FeatureStore,
    workers: int,
    advance: Callable[[int], None],
) -> None:
    """Extracts and writes runs of rows; the next run is loaded while the network works.

    Args:
      runs: of rows, each within one chunk.
      loader: as of `extract_to_store`.
      extractor: as of `extract_to_store`.
      store: as of `extract_to_store`.
      workers: as of `extract_to_store`.
      advance: called with the number of images just written.
    """
    if not runs:
        return
    # -1 for deleted rows, which are never missing
    image_of_row = rows_to_images(store, loader.source.names)
    with concurrent.futures.ThreadPoolExecutor(max(1, workers)) as pool:

        def start_loading(run: range) -> list[concurrent.futures.Future]:
            return [pool.submit(loader.load, int(image_of_row[row])) for row in run]

        loading = start_loading(runs[0])
        for run, next_run in zip(runs, [*runs[1:], range(0)], strict=True):
            loaded, origins = zip(*(future.result() for future in loading), strict=True)
            loading = start_loading(next_run)
            features = iter(extractor([one.image for one in loaded if isinstance(one, Loaded)]))
            rows: list[Row] = []
            sizes = np.zeros((len(run), 2), np.int32)
            for number, one in enumerate(loaded):
                if isinstance(one, Loaded):
                    rows.append(in_original_pixels(next(features), one.scale))
                    sizes[number] = one.size
                else:
                    rows.append(one)
            store.write(run, rows, sizes, np.stack(origins))
            advance(len(run))
