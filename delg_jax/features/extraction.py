"""Extracts all images of a source into a store, resuming where it stopped."""

import concurrent.futures
import csv
import io
import pathlib
from collections.abc import Callable

import ml_collections
import numpy as np
from absl import logging

from delg_jax import workdir
from delg_jax.data import images
from delg_jax.data.sources import ImageSource
from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.extractor import Extractor, Features
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress

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
    loader = _Loader(source, data, extractor.settings.max_size, boxes)
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
        logging.info("%s: %d shapes compiled", title, len(extractor.compiled_shapes))
    report_skipped(store.folder, store.skipped(), data.max_skipped)
    return store


def _extract_chunk(
    loaded: list[tuple[np.ndarray, float] | str],
    extractor: Extractor,
    advance: Callable[[int], None],
) -> list[Features | str]:
    rows: list[Features | str] = [item if isinstance(item, str) else "" for item in loaded]
    good = [index for index, item in enumerate(loaded) if not isinstance(item, str)]
    for index, features in zip(good, extractor([loaded[i][0] for i in good]), strict=True):
        rows[index] = _in_original_pixels(features, loaded[index][1])
    advance(len(rows))
    return rows


def _in_original_pixels(features: Features, scale: float) -> Features:
    """Undoes the shrinking of an image above the size limit, in locations and scales."""
    if features.local is None or scale == 1.0:
        return features
    local = features.local._replace(
        locations=(features.local.locations / scale).astype(np.float32),
        scales=(features.local.scales / scale).astype(np.float32),
    )
    return features._replace(local=local)


class _Loader:
    """Reads, decodes, crops and shrinks one image; returns it with its scale, or the reason."""

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
        try:
            image = images.decode(self._source.read(index), *self._limits)
            box = self._boxes[index] if self._boxes else None
            return load_query(image, box, self._max_size)
        except (images.BadImageError, OSError) as error:
            return str(error)


def load_query(
    image: np.ndarray, box: Box | None, max_size: float
) -> tuple[np.ndarray, float]:
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


def fit_pca(
    source: ImageSource, extractor: Extractor, data: ml_collections.ConfigDict
) -> pca.Pca | None:
    """Fits the projection that `config.extract.pca_dim` asks for, on evenly spaced images.

    Args:
      source: the database.
      extractor: without projection.
      data: the `config.data` tree.

    Returns:
      The projection, or None if `pca_dim` is 0.

    Raises:
      UserError: if the sample has too few descriptors.
    """
    settings = extractor.settings
    if not settings.pca_dim or not extractor.module.local_head:
        return None
    with settings.copy_and_resolve_references().unlocked() as single:
        single.local_scales = single.global_scales = (1.0,)
    sampler = Extractor(extractor.module, extractor.variables, single)
    loader = _Loader(source, data, settings.max_size, None)
    chosen = np.unique(np.linspace(0, len(source) - 1, settings.pca_images).astype(int))
    found = []
    with Progress("fit PCA", len(chosen)) as progress:
        for index in chosen:
            loaded = loader(int(index))
            if not isinstance(loaded, str):
                local = sampler([loaded[0]])[0].local
                found.append(local.descriptors[local.mask])
            progress.advance()
    sample = np.concatenate(found) if found else np.zeros((0, 1), np.float32)
    if settings.pca_dim > min(sample.shape):
        rule = f"must not exceed the sample's {len(sample)} descriptors of {sample.shape[1]}"
        raise UserError("config.extract.pca_dim", settings.pca_dim, rule)
    return pca.fit(sample, settings.pca_dim, settings.pca_whitening)


def report_skipped(folder: pathlib.Path, skipped: dict[str, str], limit: int) -> None:
    """Lists skipped images in `skipped.csv` and refuses to go on if there are too many.

    Args:
      folder: where `skipped.csv` goes; an empty list removes it.
      skipped: names and reasons.
      limit: `config.data.max_skipped`.

    Raises:
      UserError: if there are more than `limit`.
    """
    path = folder / "skipped.csv"
    if not skipped:
        path.unlink(missing_ok=True)
        return
    text = io.StringIO()
    csv.writer(text, lineterminator="\n").writerows([("image", "reason"), *skipped.items()])
    workdir.write_text(path, text.getvalue())
    name, reason = next(iter(skipped.items()))
    logging.warning("%d images skipped, listed in %s", len(skipped), path)
    if len(skipped) > limit:
        rule = f"{len(skipped)} images could not be used, first {name} ({reason}); see {path}"
        raise UserError("config.data.max_skipped", limit, rule)
