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
from delg_jax.features.origins import Box, origin, rows_to_images
from delg_jax.features.storage.rows import Row
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import missing_rows
from delg_jax.file_stamps import digest_of_bytes

_LOG = logging.getLogger(__name__)


class Loader:
    """Reads, decodes, crops and shrinks images.

    Args:
      source: the images.
      boxes: that each is cropped to, [x1, y1, x2, y2] in pixels; None for whole images.
      max_size: pixels of the longer side, see `prepare`; 0 for no limit.
      min_side: pixels; smaller images are skipped.
      max_pixels: larger images are skipped.
      reduced: whether a JPEG is decoded at 1/2, 1/4 or 1/8 if `max_size` needs no more.

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
        reduced: bool = False,
    ) -> None:
        self.source = source
        self._boxes, self._max_size, self._reduced = boxes, max_size, reduced
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
        content = ""
        loaded: Loaded | str
        try:
            data = self.source.read(index)
            content = digest_of_bytes(data, whole=True)
            encoded = images.EncodedImage(data, self._min_side, self._max_pixels)
            loaded = self._decoded(encoded, box)
        except (images.BadImageError, OSError) as error:
            if system_errors.is_shortage(error):  # every image would be skipped
                raise
            loaded = " ".join(str(error).split()) or type(error).__name__
        return loaded, origin(stamp, content, box)

    def _decoded(self, encoded: images.EncodedImage, box: Box | None) -> Loaded:
        """Decodes an image as large as `max_size` needs it, crops and shrinks it."""
        if not (self._reduced and self._max_size):
            return prepare(encoded.decode(), box, self._max_size)
        longest = max(encoded.shape)
        enough = [r for r in images.REDUCTIONS if longest >= r * self._max_size]
        picture = np.array(encoded.to_pil(max(enough, default=1)))
        ratio = max(picture.shape[:2]) / longest  # 1 for formats other than JPEG
        if box is not None:
            x1, y1, x2, y2 = (side * ratio for side in box)
            box = x1, y1, x2, y2
        image, scale, size = prepare(picture, box, self._max_size)
        rows, columns = (round(side / ratio) for side in size)
        return Loaded(image, scale * ratio, encoded.shape if box is None else (rows, columns))


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
    title, before = f"extract {store.folder.name}", len(extractor.compiled_shapes)
    with missing_rows(store, title, max_skipped) as (runs, advance):
        extract_rows(runs, loader, extractor, store, workers, advance)
    if len(extractor.compiled_shapes) > before:
        _LOG.info("%s: %d shapes compiled", title, len(extractor.compiled_shapes) - before)


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
      advance: called with the number of images just extracted; they are written by chunk.
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
            futures, loading = loading, start_loading(next_run)
            rows: list[Row] = []
            all_origins: list[np.ndarray] = []
            sizes = np.zeros((len(run), 2), np.int32)
            for start in range(0, len(run), extractor.images_at_once):
                part = futures[start : start + extractor.images_at_once]
                loaded, origins = zip(*(future.result() for future in part), strict=True)
                all_origins += origins
                features = iter(extractor([one.image for one in loaded if isinstance(one, Loaded)]))
                for one in loaded:
                    if isinstance(one, Loaded):
                        sizes[len(rows)] = one.size
                        rows.append(in_original_pixels(next(features), one.scale))
                    else:
                        rows.append(one)
                advance(len(part))
            store.write(run, rows, sizes, np.stack(all_origins))
