"""Runs the network on all pyramid levels of many images."""

import collections
import copy
import dataclasses
import functools
import itertools
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.compilation_cache import release_if_many
from delg_jax.errors import UserError
from delg_jax.features import pyramid, pyramid_level, selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.features.pyramid_level import ExtractionSettings, Level, LevelPlan
from delg_jax.models import efficientnet, vit
from delg_jax.models.delg import Delg

_IN_FLIGHT = 2  # batches that run while the results of an earlier one are copied
_ACCELERATOR_PIXELS = 4_194_304  # in a batch
_MOST_AT_ONCE = 64  # images whose levels are batched


class Features(NamedTuple):
    """Everything extracted from one image.

    Attributes:
      global_descriptor: float32 [D], unit norm.
      local: LocalFeatures [max_features]; None for a network without local head.
    """

    global_descriptor: np.ndarray
    local: LocalFeatures | None


class _LevelFeatures(NamedTuple):
    """Features of one level of one image; None if they were not asked for."""

    global_descriptor: np.ndarray | None
    local: LocalFeatures | None


class Extractor:
    """One network and one pyramid, ready for images of any size.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      settings: scales, limits and precision.
      pca: projection of the local descriptors, or None.

    Attributes:
      compiled_shapes: seconds of the first call, including compilation, by what was compiled:
        canvas, number of levels, local features of each, whether global descriptors.
    """

    def __init__(
        self,
        module: Delg,
        variables: Any,
        settings: ExtractionSettings,
        pca: Pca | None = None,
    ) -> None:
        self.module = adapted(module, settings)
        self.variables = jax.device_put(feature_variables(variables))
        self.settings = settings
        self.pca = pca
        self.compiled_shapes: dict[tuple, float] = {}
        self._held: set[tuple] = set()  # of them, those that were not dropped since

    def __call__(self, images: Sequence[np.ndarray]) -> list[Features]:
        """Extracts from uint8 images [h, w, 3]; the result does not depend on the other images."""
        plans = pyramid_level.plan(self.module, self.settings)
        sizes = [image.shape[:2] for image in images]
        step, pixels = self.settings.shape_step, _batch_pixels(self.settings)
        canvases = [
            jax.device_put(pyramid.place([image], pyramid.source_shape(size, step))[0])
            for image, size in zip(images, sizes, strict=True)
        ]
        levels: list[dict[LevelPlan, _LevelFeatures]] = [{} for _ in images]
        running: collections.deque[tuple[pyramid.Batch, Level]] = collections.deque()
        for batch in pyramid.arrange(sizes, plans, step, pixels):
            running.append((batch, self._start(batch, canvases, sizes)))
            if len(running) > _IN_FLIGHT:
                self._collect(*running.popleft(), levels)
        while running:
            self._collect(*running.popleft(), levels)
        return [self._join([found[plan] for plan in plans]) for found in levels]

    @property
    def images_at_once(self) -> int:
        """Images that are worth a call together; more give no speed."""
        return 1 if _batch_pixels(self.settings) == 1 else _MOST_AT_ONCE

    def warm_up(self, advance: Callable[[], None] = lambda: None) -> None:
        """Compiles the programs for all images up to `max_size`, by running them once.

        Args:
          advance: called after each of `warm_up_sizes`.
        """
        for size in self.warm_up_sizes():
            self([np.zeros((*size, 3), np.uint8)])
            advance()

    def on_few_canvases(self) -> Self:
        """The same with `shape_step=0`, for queries of any shape: features do not change by it."""
        other = copy.copy(self)
        other.settings = dataclasses.replace(self.settings, shape_step=0)
        other.compiled_shapes, other._held = {}, set()
        return other

    def warm_up_sizes(self) -> list[tuple[int, int]]:
        """Sizes of images that between them use every program for images up to `max_size`.

        Empty where `shape_step` or `max_size` sets no bound to the programs.
        """
        plans = pyramid_level.plan(self.module, self.settings)
        step, most = self.settings.shape_step, self.settings.max_size
        if step or not most:
            return []
        sides = [most * 2 ** (-half / 2) for half in range(10)]
        shapes = [(1.0, 1.0), (1.0, 0.75), (0.75, 1.0)]
        seen: set[tuple] = set()
        sizes = []
        for side, shape in itertools.product(sides, shapes):
            size = max(1, int(side * shape[0])), max(1, int(side * shape[1]))
            source = pyramid.source_shape(size, step)
            levels = {
                (source, pyramid.canvas_shape(pyramid.scaled_size(size, plan.scale), step))
                for plan in plans
            }
            if not levels <= seen:
                seen |= levels
                sizes.append(size)
        return sizes

    def _start(self, batch: pyramid.Batch, canvases, sizes) -> Level:
        """Resizes the levels of a batch and runs the network, without waiting for the result."""
        levels = [
            _resize(canvases[member.image], sizes[member.image], member.target, batch.shape)
            for member in batch.members
        ]
        key = (batch.shape, len(batch.members), batch.max_features, batch.pooled)
        if key not in self._held and release_if_many():
            self._held.clear()
        self._held.add(key)
        start = time.perf_counter()
        result = pyramid_level.extract_level(
            self.module,
            self.variables,
            self.pca,
            levels,
            np.asarray([member.target for member in batch.members], np.int32),
            batch.max_features,
            batch.pooled,
            float(self.settings.attention_threshold),
            self.settings.nms_radius,
        )
        self.compiled_shapes.setdefault(key, time.perf_counter() - start)
        jax.tree.map(lambda array: array.copy_to_host_async(), result)
        return result

    def _collect(
        self,
        batch: pyramid.Batch,
        result: Level,
        levels: list[dict[LevelPlan, _LevelFeatures]],
    ) -> None:
        """Waits for the result of a batch, and adds it to the levels of each image."""
        result = jax.tree.map(np.asarray, result)
        stride, first = self.module.conv4_stride, self.module.first_centre
        for row, member in enumerate(batch.members):
            scale, count, _ = member.plan
            local = None
            if count:
                local = pyramid_level.local_features(result, row, batch.shape, stride, scale, first)
            pooled_maps = result.global_descriptor
            descriptor = None if pooled_maps is None else np.asarray(pooled_maps[row])
            levels[member.image][member.plan] = _LevelFeatures(descriptor, local)

    def _join(self, levels: list[_LevelFeatures]) -> Features:
        """Joins the levels of one image."""
        pooled = [one.global_descriptor for one in levels if one.global_descriptor is not None]
        local = [one.local for one in levels if one.local is not None]
        return Features(
            pyramid_level.pool_scales(pooled, self.settings.scale_pooling),
            selection.merge(local, self.settings.max_features) if local else None,
        )


def in_original_pixels(features: Features, scale: float) -> Features:
    """Converts locations and scales of an image that was shrunk by `scale` to original pixels."""
    if features.local is None or scale == 1.0:
        return features
    local = features.local._replace(
        locations=(features.local.locations / scale).astype(np.float32),
        scales=(features.local.scales / scale).astype(np.float32),
    )
    return features._replace(local=local)


def adapted(module: Delg, settings: ExtractionSettings) -> Delg:
    """The network with the precision and the test-time pooling of the settings.

    Args:
      module: as it was trained; the variables stay the same.
      settings: of the extraction.

    Returns:
      The network to extract with (SuperGlobal, Shao et al., ICCV 2023).

    Raises:
      UserError: for ReLUP with an EfficientNet or a Vision Transformer, or regional means with the
        latter.
    """
    if settings.regional and module.backbone in vit.ARCHITECTURES:
        rule = f"must be 0 with {module.backbone}, whose maps have values below 0"
        raise UserError("config.extract.regional", settings.regional, rule)
    if settings.relup and module.backbone in {*efficientnet.ARCHITECTURES, *vit.ARCHITECTURES}:
        rule = f"must be 0 with {module.backbone}, whose blocks end without an activation"
        raise UserError("config.extract.relup", settings.relup, rule)
    fields: dict[str, Any] = {
        "dtype": jnp.dtype(settings.dtype),
        "relup": float(settings.relup),
        "regional": float(settings.regional),
    }
    if settings.gem_power:
        fields |= {"gem_power": float(settings.gem_power), "gem_learned": False}
    return module.clone(**fields)


def feature_variables(variables: Any) -> Any:
    """The variables that features depend on: all except the classifiers used in training."""
    kept = {name: variables[name] for name in ("params", "batch_stats") if name in variables}
    params = {n: v for n, v in kept["params"].items() if not n.endswith("_classifier")}
    return {**kept, "params": params}


def _batch_pixels(settings: ExtractionSettings) -> int:
    if settings.batch_pixels:
        return settings.batch_pixels
    # On a CPU larger batches are not faster, and each batch size has to be compiled
    return 1 if jax.default_backend() == "cpu" else _ACCELERATOR_PIXELS


@functools.partial(jax.jit, static_argnames="shape")
def _resize(image, size, target, shape: tuple[int, int]) -> jax.Array:
    size, target = jnp.asarray([size]), jnp.asarray([target])
    return pyramid.resize(image[None], size, target, shape)[0]
