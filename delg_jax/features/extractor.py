"""Runs the network over pyramid levels of whole batches; the heart of extraction."""

import collections
import functools
import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax.compilation_cache import release_if_many
from delg_jax.data.images import limit_size
from delg_jax.errors import UserError, require_choice
from delg_jax.features import batches, pyramid, pyramid_level, selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.features.storage.encodings import ENCODINGS, GLOBAL_DTYPES
from delg_jax.models.delg import Delg

SCALE_POOLINGS = ("mean", "max")


def check_heads(settings: ml_collections.ConfigDict) -> None:
    """Raises a UserError for fields of `config.extract` that no network can be adapted by."""
    require_choice("config.extract.dtype", settings.dtype, ("float32", "bfloat16"))
    require_choice("config.extract.scale_pooling", settings.scale_pooling, SCALE_POOLINGS)
    for field in ("gem_power", "relup"):
        if not settings[field] >= 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    if not 0 <= settings.regional <= 1:
        raise UserError("config.extract.regional", settings.regional, "must lie in [0, 1]")


def adapted(module: Delg, settings: ml_collections.ConfigDict) -> Delg:
    """The network with the precision and the test-time pooling of `config.extract`.

    Args:
      module: as it was trained; the variables stay the same.
      settings: the `config.extract` tree.

    Returns:
      The network to extract with (SuperGlobal, Shao et al., ICCV 2023).
    """
    fields = {
        "dtype": jnp.dtype(settings.dtype),
        "relup": float(settings.relup),
        "regional": float(settings.regional),
    }
    if settings.gem_power:
        fields |= {"gem_power": float(settings.gem_power), "gem_learned": False}
    return module.clone(**fields)


_IN_FLIGHT = 2  # batches that are not copied back before the next is started
_ACCELERATOR_PIXELS = 4_194_304  # in a batch


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
    check_heads(settings)
    require_choice("config.extract.local_encoding", settings.local_encoding, ENCODINGS)
    require_choice("config.extract.global_dtype", settings.global_dtype, GLOBAL_DTYPES)
    if not 0 <= settings.compression <= 19:
        rule = "must be a level from 0 to 19"
        raise UserError("config.extract.compression", settings.compression, rule)
    if settings.shape_step < 32 or settings.shape_step % 32:
        rule = "must be a positive multiple of 32 pixels"
        raise UserError("config.extract.shape_step", settings.shape_step, rule)
    for field in ("max_features", "chunk_images", "pca_images"):
        if settings[field] < 1:
            raise UserError(f"config.extract.{field}", settings[field], "must be at least 1")
    for field in ("max_size", "pca_dim", "batch_pixels", "nms_radius"):
        if settings[field] < 0:
            raise UserError(f"config.extract.{field}", settings[field], "must not be negative")
    for field in ("local_scales", "global_scales"):
        positive = [isinstance(s, int | float) and s > 0 for s in settings[field]]
        if not positive or not all(positive):
            raise UserError(f"config.extract.{field}", settings[field], "must be positive numbers")


class _Found(NamedTuple):
    """What one level of one image gave; None where it was not asked for."""

    descriptor: np.ndarray | None
    local: LocalFeatures | None


class Extractor:
    """One network and one pyramid, ready for images of any size.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      settings: the `config.extract` tree.
      pca: projection of the local descriptors, or None.

    Attributes:
      compiled_shapes: seconds of the first call, compilation included, by what was compiled: canvas
        of the levels, how many, local features of each, whether global descriptors.
    """

    def __init__(
        self,
        module: Delg,
        variables: Any,
        settings: ml_collections.ConfigDict,
        pca: Pca | None = None,
    ) -> None:
        self.module = adapted(module, settings)
        self.variables = jax.device_put(deciding(variables))
        self.settings = settings
        self.pca = pca
        self.compiled_shapes: dict[tuple, float] = {}

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]; the result does not depend on their company."""
        plans = pyramid_level.plan(self.module, self.settings)
        found: list[dict[pyramid_level.LevelPlan, _Found]] = [{} for _ in images]
        for batch, result in self._run(images, plans):
            for row, member in enumerate(batch.members):
                found[member.index][member.plan] = self._read(result, row, batch.shape, member)
        return [self._join([levels[plan] for plan in plans]) for levels in found]

    def _run(self, images: Sequence[np.ndarray], plans: list[pyramid_level.LevelPlan]):
        """Yields (Batch, Level as NumPy); later batches run while an earlier one is copied."""
        sizes = [image.shape[:2] for image in images]
        sources = [
            jax.device_put(pyramid.place([image], pyramid.source_shape(size))[0])
            for image, size in zip(images, sizes, strict=True)
        ]
        step, pixels = self.settings.shape_step, _batch_pixels(self.settings)
        waiting: collections.deque = collections.deque()
        for batch in batches.arrange(sizes, plans, step, pixels):
            waiting.append((batch, self._start(batch, sources, sizes)))
            if len(waiting) > _IN_FLIGHT:
                yield _finish(*waiting.popleft())
        yield from (_finish(*entry) for entry in waiting)

    def _start(self, batch: batches.Batch, sources, sizes) -> pyramid_level.Level:
        """Resizes and runs the network, without waiting for the result."""
        levels = [
            _resize(sources[member.index], sizes[member.index], member.target, batch.shape)
            for member in batch.members
        ]
        key = (batch.shape, len(batch.members), batch.count, batch.pooled)
        if key not in self.compiled_shapes:
            release_if_many()
        start = time.perf_counter()
        result = pyramid_level.compute(
            self.module,
            self.variables,
            self.pca,
            levels,
            np.asarray([member.target for member in batch.members], np.int32),
            batch.count,
            batch.pooled,
            float(self.settings.attention_threshold),
            self.settings.nms_radius,
        )
        self.compiled_shapes.setdefault(key, time.perf_counter() - start)
        jax.tree.map(lambda array: array.copy_to_host_async(), result)
        return result

    def _read(self, result: pyramid_level.Level, row: int, shape, member: batches.Member) -> _Found:
        scale, count, pooled = member.plan
        stride = self.module.conv4_stride
        local = pyramid_level.local_features(result, row, shape, stride, scale) if count else None
        return _Found(result.global_descriptor[row] if pooled else None, local)

    def _join(self, levels: list[_Found]) -> Features:
        local = [found.local for found in levels if found.local is not None]
        pooled = [found.descriptor for found in levels if found.descriptor is not None]
        return Features(
            pyramid_level.pool_scales(pooled, self.settings.scale_pooling),
            selection.merge(local, self.settings.max_features) if local else None,
        )


def _batch_pixels(settings: ml_collections.ConfigDict) -> int:
    if settings.batch_pixels:
        return settings.batch_pixels
    # On a CPU larger batches are no faster, and each size of them has to be compiled
    return 1 if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS


@functools.partial(jax.jit, static_argnames="shape")
def _resize(image, size, target, shape: tuple[int, int]) -> jax.Array:
    size, target = jnp.asarray([size]), jnp.asarray([target])
    return pyramid.resize(image[None], size, target, shape)[0]


def _finish(
    batch: batches.Batch, result: pyramid_level.Level
) -> tuple[batches.Batch, pyramid_level.Level]:
    return batch, jax.tree.map(np.asarray, result)


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
