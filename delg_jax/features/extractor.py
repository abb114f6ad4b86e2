"""Runs the network over pyramid levels of whole batches; the heart of extraction."""

import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax.data.images import limit_size
from delg_jax.features import pyramid, receptive_field, selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca, project
from delg_jax.models.delg import Delg
from delg_jax.models.pooling import l2_normalize


class Features(NamedTuple):
    """Everything extracted from one image.

    Attributes:
      global_descriptor: float32 [D], unit norm.
      local: LocalFeatures [max_features]; None for a network without local head.
    """

    global_descriptor: np.ndarray
    local: LocalFeatures | None


class _Level(NamedTuple):
    """What one compiled call returns for a batch on one level."""

    global_descriptor: jax.Array
    cells: jax.Array | None
    scores: jax.Array | None
    descriptors: jax.Array | None
    valid: jax.Array | None


@functools.partial(jax.jit, static_argnames=("module", "shape", "count", "threshold"))
def _level(
    module: Delg,
    variables: Any,
    pca: Pca | None,
    images: jax.Array,
    sizes: jax.Array,
    targets: jax.Array,
    shape: tuple[int, int],
    count: int,
    threshold: float,
) -> _Level:
    resized = pyramid.resize(images, sizes, targets, shape)
    outputs = module.apply(variables, resized, targets)
    descriptor = outputs.global_descriptor.astype(jnp.float32)
    if not count:
        return _Level(descriptor, None, None, None, None)
    maps = outputs.local_descriptors
    count = min(count, maps.shape[1] * maps.shape[2])
    cells, scores, valid = selection.top_cells(
        outputs.attention, outputs.conv4_mask, count, threshold
    )
    flat = maps.reshape(maps.shape[0], -1, maps.shape[-1])
    chosen = jnp.take_along_axis(flat, cells[..., None], axis=1).astype(jnp.float32)
    chosen = l2_normalize(chosen)
    chosen = chosen if pca is None else project(chosen, pca)
    return _Level(descriptor, cells, scores, chosen, valid)


class Extractor:
    """One network and one pyramid, ready for images of any size.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      settings: the `config.extract` tree.
      pca: projection of the local descriptors, or None.

    Attributes:
      compiled_shapes: the distinct (source canvas, level canvas, batch) shapes seen so far.
    """

    def __init__(
        self,
        module: Delg,
        variables: Any,
        settings: ml_collections.ConfigDict,
        pca: Pca | None = None,
    ) -> None:
        self.module = module.clone(dtype=jnp.dtype(settings.dtype))
        self.variables = jax.device_put(
            {name: variables[name] for name in ("params", "batch_stats") if name in variables}
        )
        self.settings = settings
        self.pca = pca
        self.compiled_shapes: set[tuple] = set()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]; the result does not depend on their company."""
        local_scales = tuple(self.settings.local_scales) if self.module.local_head else ()
        global_scales = tuple(self.settings.global_scales)
        descriptors: list[dict[float, np.ndarray]] = [{} for _ in images]
        levels: list[list[LocalFeatures]] = [[] for _ in images]
        for scale in sorted({*local_scales, *global_scales}):
            count = self.settings.max_features if scale in local_scales else 0
            for indices, level in self._run(images, scale, count):
                for row, index in enumerate(indices):
                    if scale in global_scales:
                        descriptors[index][scale] = level.global_descriptor[row]
                    if count:
                        width = self._map_width(images[index], scale)
                        levels[index].append(self._features(level, row, width, scale))
        return [
            Features(
                _average(list(by_scale.values())),
                selection.merge(found, self.settings.max_features) if local_scales else None,
            )
            for by_scale, found in zip(descriptors, levels, strict=True)
        ]

    def _run(self, images: Sequence[np.ndarray], scale: float, count: int):
        """Yields (indices of images, level results as NumPy) for every batch of one shape."""
        groups: dict[tuple, list[int]] = {}
        for index, image in enumerate(images):
            size = image.shape[:2]
            target = pyramid.scaled_size(size, scale)
            step = self.settings.shape_step
            source = pyramid.canvas_shape(size, step)
            groups.setdefault((source, pyramid.canvas_shape(target, step)), []).append(index)
        for (source, shape), members in groups.items():
            size = max(1, self.settings.batch_pixels // (shape[0] * shape[1]))
            for start in range(0, len(members), size):
                indices = members[start : start + size]
                yield (
                    indices,
                    self._call([images[i] for i in indices], source, shape, scale, size, count),
                )

    def _call(self, images, source, shape, scale: float, batch: int, count: int) -> _Level:
        filler = [np.zeros((1, 1, 3), np.uint8)] * (batch - len(images))
        sizes = [image.shape[:2] for image in (*images, *filler)]
        targets = [pyramid.scaled_size(size, scale) for size in sizes]
        self.compiled_shapes.add((source, shape, batch, count > 0))
        level = _level(
            self.module,
            self.variables,
            self.pca,
            pyramid.place([*images, *filler], source),
            np.asarray(sizes, np.int32),
            np.asarray(targets, np.int32),
            shape,
            count,
            float(self.settings.attention_threshold),
        )
        return jax.tree.map(np.asarray, level)

    def _map_width(self, image: np.ndarray, scale: float) -> int:
        """Columns of the conv4 map on the canvas, which flat positions count in."""
        target = pyramid.scaled_size(image.shape[:2], scale)
        return pyramid.canvas_shape(target, self.settings.shape_step)[1] // self.module.conv4_stride

    def _features(self, level: _Level, row: int, width: int, scale: float) -> LocalFeatures:
        cells = np.stack(np.divmod(level.cells[row], width), axis=-1)
        return LocalFeatures(
            locations=receptive_field.centres(cells, self.module.conv4_stride, scale),
            scales=np.full(len(cells), 1.0 / scale, np.float32),
            scores=level.scores[row],
            descriptors=level.descriptors[row],
            mask=level.valid[row],
        )


def _average(descriptors: list[np.ndarray]) -> np.ndarray:
    """Mean of unit vectors of all scales, normalised again (section 4.1)."""
    mean = np.mean(descriptors, axis=0)
    return (mean / max(float(np.linalg.norm(mean)), 1e-12)).astype(np.float32)


def extract_image(
    model: Delg, variables: Any, image: np.ndarray, extract_config: ml_collections.ConfigDict
) -> Features:
    """Extracts one image with all scales, for notebooks and tests.

    Args:
      model: the network.
      variables: its parameters and BatchNorm statistics.
      image: uint8 [H, W, 3], RGB.
      extract_config: the `config.extract` tree.

    Returns:
      Features; locations in pixels of `image`.
    """
    limited, scale = limit_size(image, extract_config.max_size)
    return in_original_pixels(Extractor(model, variables, extract_config)([limited])[0], scale)


def in_original_pixels(features: Features, scale: float) -> Features:
    """Undoes the shrinking by `scale` of an image above the size limit, in locations and scales."""
    if features.local is None or scale == 1.0:
        return features
    local = features.local._replace(
        locations=(features.local.locations / scale).astype(np.float32),
        scales=(features.local.scales / scale).astype(np.float32),
    )
    return features._replace(local=local)
