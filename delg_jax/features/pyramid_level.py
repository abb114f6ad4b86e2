"""One pyramid level: the network on a batch of resized images, and its local features."""

import contextlib
import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, Self, TypeVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax.features import selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca, project
from delg_jax.models.delg import Delg
from delg_jax.models.heads import l2_normalize

AnyArray = TypeVar("AnyArray", np.ndarray, jax.Array)

# Receptive field of conv4 in pixels, as in the official extractor for every backbone. The padding
# is half of the size, so that the centre of position i is stride * i.
RECEPTIVE_FIELD = 291
PADDING = 145


def centres(cells: np.ndarray, stride: int, scale: float, first: float = 0.0) -> np.ndarray:
    """Centres of receptive fields in pixels of the image before it was scaled.

    Args:
      cells: int [K, 2], row and column on the feature map.
      stride: pixels between positions.
      scale: of the pyramid level.
      first: pixel of the level on which the first position is centred.

    Returns:
      float32 [K, 2], (y, x).
    """
    return (
        (stride * cells.astype(np.float32) - PADDING + (RECEPTIVE_FIELD - 1) / 2 + first) / scale
    ).astype(np.float32)


def boxes(locations: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Receptive fields around keypoints, as in the official files.

    Args:
      locations: float32 [K, 2], centres (y, x) in pixels.
      scales: float32 [K], 1 / (scale of the pyramid level).

    Returns:
      float32 [K, 4]: y1, x1, y2, x2 in pixels.
    """
    half = ((RECEPTIVE_FIELD - 1) / 2 * scales)[:, None]
    return np.concatenate([locations - half, locations + half], axis=1).astype(np.float32)


def conv1x1_as_matmul() -> contextlib.AbstractContextManager[None]:
    """Inside the context, Flax computes every `nn.Conv` with a 1x1 kernel as a matrix product."""
    return nn.intercept_methods(_conv1x1_as_matmul)


def _conv1x1_as_matmul(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    layer = context.module
    if not isinstance(layer, nn.Conv) or layer.kernel_size != (1, 1):
        return call(*args, **kwargs)
    (maps,) = args
    rows, columns = layer.strides if isinstance(layer.strides, tuple) else (1, 1)
    variables: list[Any] = [layer.get_variable("params", name) for name in ("kernel", "bias")]
    promote: Callable[..., Any] = layer.promote_dtype  # its type allows None for every array
    maps, kernel, bias = promote(maps, *variables, dtype=layer.dtype)
    maps = maps[:, ::rows, ::columns]
    products = jnp.dot(maps.reshape(-1, maps.shape[-1]), kernel[0, 0])
    products = products if bias is None else products + bias[None, :]
    return products.reshape(*maps.shape[:-1], -1)


class LevelPlan(NamedTuple):
    """What to extract from one level.

    Attributes:
      scale: of the image.
      max_features: maximum number of local features; 0 for none.
      pooled: whether to compute the global descriptor.
    """

    scale: float
    max_features: int
    pooled: bool


class Level(NamedTuple):
    """Features of one level of B images; K is `count`, or all positions if there are fewer.

    Attributes:
      global_descriptor: float32 [B, D], unit norm; None if it was not asked for.
      cells: int32 [B, K], flat positions on the conv4 map of the canvas, best first. This and the
        following fields are None if no local features were asked for.
      scores: float32 [B, K], attention.
      descriptors: float32 [B, K, D], unit norm.
      valid: bool [B, K], False on padding.
    """

    global_descriptor: jax.Array | None
    cells: jax.Array | None
    scores: jax.Array | None
    descriptors: jax.Array | None
    valid: jax.Array | None


@dataclasses.dataclass(frozen=True)
class ExtractionSettings:
    """How an image is extracted; `config.extract` has the same names.

    Attributes:
      local_scales: of the pyramid, for local features.
      global_scales: of the pyramid, for the global descriptor.
      max_size: longer side of an image in pixels; 0 = any size.
      max_features: most local features of an image, over all scales.
      attention_threshold: features with lower scores are dropped.
      nms_radius: of non-maximum suppression per scale, positions of conv4; 0 = none.
      scale_pooling: mean or max, over the global descriptors of the scales.
      gem_power: p of GeM; 0 = the network's.
      regional: weight of regional means, 0 to 1.
      relup: least output of the units of conv2 to conv4.
      dtype: float32 or bfloat16, of the computation.
      batch_pixels: pixels in a batch; 0 = as fits the device.
      shape_step: pixels; sides are padded to multiples, so that few shapes compile.
    """

    local_scales: tuple[float, ...]
    global_scales: tuple[float, ...]
    max_size: int = 0
    max_features: int = 1000
    attention_threshold: float = 0.0
    nms_radius: int = 0
    scale_pooling: str = "mean"
    gem_power: float = 0.0
    regional: float = 0.0
    relup: float = 0.0
    dtype: str = "float32"
    batch_pixels: int = 0
    shape_step: int = 64

    @classmethod
    def of(cls, extract: ml_collections.ConfigDict) -> Self:
        """The settings in the `config.extract` tree."""
        return cls(**{field.name: extract[field.name] for field in dataclasses.fields(cls)})


def plan(module: Delg, settings: ExtractionSettings) -> list[LevelPlan]:
    """The levels to extract from, in ascending order of the scales."""
    local = set(settings.local_scales) if module.local_head else set()
    pooled = set(settings.global_scales)
    return [
        LevelPlan(scale, settings.max_features if scale in local else 0, scale in pooled)
        for scale in sorted(local | pooled)
    ]


@functools.partial(
    jax.jit, static_argnames=("module", "count", "pooled", "threshold", "nms_radius")
)
def extract_level(
    module: Delg,
    variables: Any,
    pca: Pca | None,
    images: Sequence[jax.Array],
    sizes: jax.Array,
    count: int,
    pooled: bool,
    threshold: float = 0.0,
    nms_radius: int = 0,
) -> Level:
    """Runs the network on one level and selects its local features.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      pca: projection of the local descriptors, or None.
      images: float32 [H, W, 3], B of them, resized and top left on a canvas of one shape.
      sizes: int32 [B, 2], rows and columns that an image covers.
      count: maximum number of local features; 0 for none.
      pooled: whether to compute the global descriptor.
      threshold: tau, minimum attention of local features.
      nms_radius: cells, see `selection.suppress`.

    Returns:
      Level. Only `cells` depends on the canvas.
    """
    with conv1x1_as_matmul():
        outputs: Any = module.apply(variables, jnp.stack(images), sizes)
    descriptor = outputs.global_descriptor.astype(jnp.float32) if pooled else None
    if not count:
        return Level(descriptor, None, None, None, None)
    maps = outputs.local_descriptors
    count = min(count, maps.shape[1] * maps.shape[2])
    mask = selection.suppress(outputs.attention, outputs.conv4_mask, nms_radius)
    cells, scores, valid = selection.top_cells(outputs.attention, mask, count, threshold)
    flat = maps.reshape(maps.shape[0], -1, maps.shape[-1])
    chosen = jnp.take_along_axis(flat, cells[..., None], axis=1).astype(jnp.float32)
    chosen = l2_normalize(chosen)
    chosen = chosen if pca is None else project(chosen, pca)
    return Level(descriptor, cells, scores, chosen, valid)


def local_features(
    level: Level, row: int, shape: tuple[int, int], stride: int, scale: float, first: float = 0.0
) -> LocalFeatures:
    """The local features of one image of a level, with locations in pixels of the image.

    Args:
      level: with local features; NumPy or JAX.
      row: number of the image in the batch.
      shape: canvas of the level.
      stride: of conv4, pixels.
      scale: of the level.
      first: as for `centres`.

    Returns:
      LocalFeatures [K] of the same kind of arrays.
    """
    found: Any = level  # its local fields are not None
    cells = found.cells[row]
    rows, columns = shape[0] // stride, shape[1] // stride
    # A table, because accelerators divide less exactly than NumPy
    grid = np.stack(np.divmod(np.arange(rows * columns), columns), axis=-1)
    arrays = cells.__array_namespace__()
    return LocalFeatures(
        locations=arrays.take(centres(grid, stride, scale, first), cells, axis=0),
        scales=arrays.full(cells.shape, 1.0 / scale, np.float32),
        scores=found.scores[row],
        descriptors=found.descriptors[row],
        mask=found.valid[row],
    )


def pool_scales(descriptors: list[AnyArray], pooling: str = "mean") -> AnyArray:
    """Pools the global descriptors of all scales of an image into one.

    Args:
      descriptors: float32 [D] each, NumPy or JAX.
      pooling: `mean` (section 4.1), or `max` of each element (SuperGlobal).

    Returns:
      float32 [D], unit norm, of the same kind of arrays.
    """
    arrays = descriptors[0].__array_namespace__()
    pooled = getattr(arrays, pooling)(arrays.stack(descriptors), axis=0)
    return pooled / arrays.maximum(arrays.linalg.norm(pooled), 1e-12)
