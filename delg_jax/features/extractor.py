"""Runs the network over pyramid levels of whole batches; the heart of extraction."""

from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax.data.images import limit_size
from delg_jax.errors import UserError, require_choice
from delg_jax.features import level, pyramid, selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.models.delg import Delg


class Features(NamedTuple):
    """Everything extracted from one image.

    Attributes:
      global_descriptor: float32 [D], unit norm.
      local: LocalFeatures [max_features]; None for a network without local head.
    """

    global_descriptor: np.ndarray
    local: LocalFeatures | None


def deciding(variables: Any) -> Any:
    """Variables that features depend on: all but the classifiers, which only training uses."""
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    params = {n: v for n, v in kept["params"].items() if not n.endswith("_classifier")}
    return {**kept, "params": params}


def check(settings: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a `config.extract` tree that no features can be extracted with."""
    require_choice("config.extract.dtype", settings.dtype, ("float32", "bfloat16"))
    require_choice("config.extract.local_dtype", settings.local_dtype, ("float32", "float16"))
    if settings.shape_step < 32 or settings.shape_step % 32:
        rule = "must be a positive multiple of 32 pixels"
        raise UserError("config.extract.shape_step", settings.shape_step, rule)
    for field in ("max_features", "chunk_images", "batch_pixels", "pca_images"):
        if settings[field] < 1:
            raise UserError(f"config.extract.{field}", settings[field], "must be at least 1")
    for field in ("max_size", "pca_dim"):
        if settings[field] < 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    for field in ("local_scales", "global_scales"):
        positive = [isinstance(s, int | float) and s > 0 for s in settings[field]]
        if not positive or not all(positive):
            raise UserError(f"config.extract.{field}", settings[field], "must be positive numbers")


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
        self.variables = jax.device_put(deciding(variables))
        self.settings = settings
        self.pca = pca
        self.compiled_shapes: set[tuple] = set()

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]; the result does not depend on their company."""
        descriptors: list[list[np.ndarray]] = [[] for _ in images]
        found: list[list[LocalFeatures]] = [[] for _ in images]
        for scale, count, pooled in level.plan(self.module, self.settings):
            for indices, shape, result in self._run(images, scale, count):
                for row, index in enumerate(indices):
                    if pooled:
                        descriptors[index].append(result.global_descriptor[row])
                    if count:
                        stride = self.module.conv4_stride
                        local = level.local_features(result, row, shape, stride, scale)
                        found[index].append(local)
        return [
            Features(
                level.average(by_scale),
                selection.merge(local, self.settings.max_features) if local else None,
            )
            for by_scale, local in zip(descriptors, found, strict=True)
        ]

    def _run(self, images: Sequence[np.ndarray], scale: float, count: int):
        """Yields (indices of images, canvas, level as NumPy) for every batch of one shape."""
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
                batch = [images[i] for i in indices]
                yield indices, shape, self._call(batch, source, shape, scale, size, count)

    def _call(self, images, source, shape, scale: float, batch: int, count: int):
        filler = [np.zeros((1, 1, 3), np.uint8)] * (batch - len(images))
        sizes = [image.shape[:2] for image in (*images, *filler)]
        targets = [pyramid.scaled_size(size, scale) for size in sizes]
        self.compiled_shapes.add((source, shape, batch, count > 0))
        result = level.compute(
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
        return jax.tree.map(np.asarray, result)


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
