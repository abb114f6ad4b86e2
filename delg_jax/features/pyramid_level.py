"""One level of the pyramid: the network on a batch of resized images, and its best positions."""

import contextlib
import functools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import flax.linen as nn
import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax.features import selection
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca, project
from delg_jax.models.delg import Delg
from delg_jax.models.pooling import l2_normalize

# Of conv4, as the official extractor has them for every backbone, in pixels. All conventions are
# centred: the padding is half of the size, so that the centre of position i is stride * i.
SIZE = 291
PADDING = 145


def centres(cells: np.ndarray, stride: int, scale: float) -> np.ndarray:
    """Centres of receptive fields in pixels of the image before it was scaled.

    Args:
      cells: int [K, 2], row and column on the map.
      stride: pixels between positions, 16 or 32.
      scale: of the pyramid level.

    Returns:
      float32 [K, 2], (y, x).
    """
    return ((stride * cells.astype(np.float32) - PADDING + (SIZE - 1) / 2) / scale).astype(
        np.float32
    )


def boxes(locations: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Receptive fields around keypoints, as the official files list them.

    Args:
      locations: float32 [K, 2], centres (y, x) in pixels.
      scales: float32 [K], 1 / (scale of the pyramid level).

    Returns:
      float32 [K, 4]: y1, x1, y2, x2 in pixels.
    """
    half = ((SIZE - 1) / 2 * scales)[:, None]
    return np.concatenate([locations - half, locations + half], axis=1).astype(np.float32)


def as_products() -> contextlib.AbstractContextManager[None]:
    """Within it, every `nn.Conv` of kernel 1x1 that a Flax module calls is a matrix product."""
    return nn.intercept_methods(_multiply)


def _multiply(
    call: Callable[..., Any],
    args: tuple[Any, ...],
    kwargs: dict[str, Any],
    context: nn.module.InterceptorContext,
) -> Any:
    layer = context.module
    if not isinstance(layer, nn.Conv) or tuple(layer.kernel_size) != (1, 1):
        return call(*args, **kwargs)
    (maps,) = args
    return _product(layer, maps)


def _product(layer: nn.Conv, maps: jax.Array) -> jax.Array:
    rows, columns = layer.strides if isinstance(layer.strides, tuple) else (1, 1)
    kernel = layer.get_variable("params", "kernel")
    bias = layer.get_variable("params", "bias")
    maps, kernel, bias = layer.promote_dtype(maps, kernel, bias, dtype=layer.dtype)
    maps = maps[:, ::rows, ::columns]
    products = jnp.dot(maps.reshape(-1, maps.shape[-1]), kernel[0, 0])
    products = products if bias is None else products + bias[None, :]
    return products.reshape(*maps.shape[:-1], -1)


class LevelPlan(NamedTuple):
    """What one level is asked for.

    Attributes:
      scale: of the image.
      count: local features to find; 0 for none.
      pooled: whether its global descriptor counts.
    """

    scale: float
    count: int
    pooled: bool


class Level(NamedTuple):
    """What the network found on one level; K is `count`, or all positions if there are fewer.

    Attributes:
      global_descriptor: float32 [B, D], unit norm; None where it was not asked for.
      cells: int32 [B, K], flat positions on the conv4 map of the canvas, best first; None, as
        all that follows, where no local features were asked for.
      scores: float32 [B, K], attention.
      descriptors: float32 [B, K, D], unit norm.
      valid: bool [B, K], False where there was no further position.
    """

    global_descriptor: jax.Array | None
    cells: jax.Array | None
    scores: jax.Array | None
    descriptors: jax.Array | None
    valid: jax.Array | None


def plan(module: Delg, settings: ml_collections.ConfigDict) -> list[LevelPlan]:
    """The levels that `config.extract` asks for, in ascending order of the scales."""
    local = set(settings.local_scales) if module.local_head else set()
    pooled = set(settings.global_scales)
    return [
        LevelPlan(scale, settings.max_features if scale in local else 0, scale in pooled)
        for scale in sorted(local | pooled)
    ]


@functools.partial(
    jax.jit, static_argnames=("module", "count", "pooled", "threshold", "nms_radius")
)
def compute(
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
    """Runs the network on one level; what is not asked for is not computed either.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      pca: projection of the local descriptors, or None.
      images: float32 [H, W, 3], B of them, resized and top left on a canvas of one shape.
      sizes: int32 [B, 2], rows and columns that an image covers.
      count: local features to find at most; 0 for none.
      pooled: whether to compute the global descriptor.
      threshold: tau; features of lower attention are never found.
      nms_radius: cells, see `selection.suppress`.

    Returns:
      Level; apart from `cells`, it does not depend on the canvas.
    """
    with as_products():
        outputs = module.apply(variables, jnp.stack(images), sizes)
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
    level: Level, row: int, shape: tuple[int, int], stride: int, scale: float
) -> LocalFeatures:
    """The local features of one image of a level, with locations in pixels of the image.

    Args:
      level: with local features; NumPy or JAX.
      row: of the image in the batch.
      shape: canvas of the level.
      stride: of conv4, 16 or 32 pixels.
      scale: of the level.

    Returns:
      LocalFeatures [K] of the same kind of arrays.
    """
    cells = level.cells[row]
    rows, columns = shape[0] // stride, shape[1] // stride
    # Looked up, because accelerators divide less exactly than NumPy
    grid = np.stack(np.divmod(np.arange(rows * columns), columns), axis=-1)
    arrays = cells.__array_namespace__()
    return LocalFeatures(
        locations=arrays.take(centres(grid, stride, scale), cells, axis=0),
        scales=arrays.full(cells.shape, 1.0 / scale, np.float32),
        scores=level.scores[row],
        descriptors=level.descriptors[row],
        mask=level.valid[row],
    )


def pool_scales(
    descriptors: list[np.ndarray] | list[jax.Array], pooling: str = "mean"
) -> np.ndarray | jax.Array:
    """One unit vector [D] of an image from those [D] of its scales.

    Args:
      descriptors: float32 [D] each, NumPy or JAX.
      pooling: `mean` (section 4.1), or `max` of each element (SuperGlobal).

    Returns:
      float32 [D], of the same kind of arrays.
    """
    arrays = descriptors[0].__array_namespace__()
    pooled = getattr(arrays, pooling)(arrays.stack(descriptors), axis=0)
    return pooled / arrays.maximum(arrays.linalg.norm(pooled), 1e-12)
