"""Heads (section 3): pooling of conv5, attention and reduction of conv4, and classifiers."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

POOLINGS = ("gem", "avg", "max")
REDUCTIONS = ("ae", "fc", "none")  # of `DimReduction`
_FLOOR = 1e-6  # lower bound of activations in GeM, as in the official code
REGION_SIDE = 5  # side of a region, positions
REGION_POWER = 2.5  # of GeM over a region


def pool(
    maps: jax.Array, kind: str, power: jax.Array | float = 3.0, mask: jax.Array | None = None
) -> jax.Array:
    """Pools each channel over all positions (equation 1, without the whitening).

    Args:
      maps: float [B, H, W, C]; GeM takes values below 1e-6 as that.
      kind: `gem` (generalised mean), `avg` (SPoC) or `max`.
      power: p of GeM; 1 is the average, infinity the maximum.
      mask: bool [B, H, W], positions to pool; None for all.

    Returns:
      float32 [B, C]; zeros if the mask is empty.

    Raises:
      ValueError: if `kind` is unknown.
    """
    maps = maps.astype(jnp.float32)
    if mask is None:
        mask = jnp.ones(maps.shape[:3], bool)
    weights = mask[..., None]
    if kind == "max":
        best = jnp.max(jnp.where(weights, maps, -jnp.inf), axis=(1, 2))
        return jnp.where(jnp.any(mask, axis=(1, 2))[:, None], best, 0.0)
    if kind == "avg":
        return _masked_mean(maps, mask)
    if kind == "gem":
        return _generalized_mean(jnp.maximum(maps, _FLOOR), mask, power)
    raise ValueError(f"kind (={kind!r}) must be one of {POOLINGS}")


def _generalized_mean(maps: jax.Array, mask: jax.Array, power: jax.Array | float) -> jax.Array:
    # Dividing by the maximum avoids overflow, and keeps the root away from zero, where its gradient
    # is infinite. The division cancels, so the maximum needs no gradient.
    covered = jnp.any(mask, axis=(1, 2))[:, None]
    largest = jnp.max(jnp.where(mask[..., None], maps, 0.0), axis=(1, 2))
    largest = jax.lax.stop_gradient(jnp.where(covered, largest, 1.0))
    mean = _masked_mean((maps / largest[:, None, None, :]) ** power, mask)
    return jnp.where(covered, largest * jnp.where(covered, mean, 1.0) ** (1.0 / power), 0.0)


def _masked_mean(maps: jax.Array, mask: jax.Array) -> jax.Array:
    count = jnp.maximum(jnp.sum(mask, axis=(1, 2)), 1)[:, None]
    return jnp.sum(jnp.where(mask[..., None], maps, 0.0), axis=(1, 2)) / count


def l2_norm(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """L2 norms of vectors; the gradient at a zero vector is zero instead of undefined."""
    squared = jnp.sum(jnp.square(vectors), axis=axis)
    return jnp.where(squared > 0.0, jnp.sqrt(jnp.where(squared > 0.0, squared, 1.0)), 0.0)


def l2_normalize(vectors: jax.Array, axis: int = -1) -> jax.Array:
    """Scales vectors to unit length; a zero vector stays zero, with a finite gradient."""
    squared = jnp.sum(jnp.square(vectors), axis=axis, keepdims=True)
    return vectors * jax.lax.rsqrt(jnp.maximum(squared, 1e-12))


def blend_regions(maps: jax.Array, share: float, sizes: jax.Array | None = None) -> jax.Array:
    """Blends a map with the generalised mean of the region around each position.

    Args:
      maps: float [B, H, W, C], not negative.
      share: weight of the regional means; 0 gives the map itself.
      sizes: int32 [B, 2], rows and columns that each image covers from the top left; None for
        all. Regions are padded by reflection at these borders.

    Returns:
      float32 [B, H, W, C]; positions beyond an image's own are undefined.
    """
    maps = maps.astype(jnp.float32)
    if sizes is None:
        sizes = jnp.broadcast_to(jnp.asarray(maps.shape[1:3], jnp.int32)[None, :], (len(maps), 2))
    margin = REGION_SIDE // 2
    powers = _reflected(
        _reflected(maps**REGION_POWER, sizes[:, 0], 1, margin), sizes[:, 1], 2, margin
    )
    window = (1, REGION_SIDE, REGION_SIDE, 1)
    sums = jax.lax.reduce_window(powers, 0.0, jax.lax.add, window, (1, 1, 1, 1), "VALID")
    return share * (sums / REGION_SIDE**2) ** (1.0 / REGION_POWER) + (1.0 - share) * maps


def _reflected(maps: jax.Array, lengths: jax.Array, axis: int, margin: int) -> jax.Array:
    """Pads an axis by `margin` on both sides, reflected at its first and last valid position."""
    positions = jnp.arange(-margin, maps.shape[axis] + margin)[None, :]
    last = lengths[:, None] - 1
    mirrored = jnp.where(positions > last, 2 * last - positions, jnp.abs(positions))
    index = jnp.clip(mirrored, 0, last)
    shape = [len(maps), 1, 1, 1]
    shape[axis] = index.shape[1]
    return jnp.take_along_axis(maps, index.reshape(shape), axis=axis)


class Attention(nn.Module):
    """Attention scores: 1x1 convolution, ReLU, 1x1 convolution, softplus (Noh et al., ICCV 2017).

    Attributes:
      features: channels of the first convolution.
      epsilon: of its BatchNorm.
      norm_momentum: of BatchNorm's running statistics.
      norm_axis: device axis over which BatchNorm averages statistics, or None.
      dtype: of the computation.
    """

    features: int
    epsilon: float
    norm_momentum: float = 0.9
    norm_axis: str | None = None
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array, train: bool = False) -> jax.Array:
        """Maps [B, H, W, C] to scores float32 [B, H, W], above 0."""
        x = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="conv1")(maps)
        x = nn.BatchNorm(
            use_running_average=not train,
            momentum=self.norm_momentum,
            epsilon=self.epsilon,
            dtype=self.dtype,
            axis_name=self.norm_axis if train else None,
            name="norm1",
        )(x)
        x = nn.Conv(1, (1, 1), dtype=self.dtype, name="conv2")(nn.relu(x))
        return nn.softplus(x[..., 0].astype(jnp.float32))


def norm_attention(maps: jax.Array) -> jax.Array:
    """Parameter-free attention: the L2 norm of each position of [B, H, W, C], float32 [B, H, W]."""
    return l2_norm(maps.astype(jnp.float32))


def attend(maps: jax.Array, scores: jax.Array, pooling: str, normalize: bool) -> jax.Array:
    """Pools features weighted by attention, for the local classifier (equation 5).

    Args:
      maps: float [B, H, W, C], the reconstruction or the descriptors.
      scores: float32 [B, H, W].
      pooling: `sum` (the paper) or `mean` (the official code).
      normalize: whether to L2-normalise each position first (the official code).

    Returns:
      float32 [B, C].
    """
    maps = maps.astype(jnp.float32)
    if normalize:
        maps = l2_normalize(maps)
    weighted = maps * scores[..., None]
    return jnp.sum(weighted, axis=(1, 2)) if pooling == "sum" else jnp.mean(weighted, axis=(1, 2))


class DimReduction(nn.Module):
    """Reduces the dimension of conv4 to that of local descriptors (section 3.2).

    Attributes:
      kind: `ae` (autoencoder), `fc` (one layer, trained by the attention loss alone) or `none`
        (conv4 itself).
      features: C_T, the dimension of a local descriptor.
      dtype: of the computation.
      signed: whether conv4 has values below 0, so that the reconstruction must too.
    """

    kind: str
    features: int
    dtype: Any = jnp.float32
    signed: bool = False

    @nn.compact
    def __call__(self, maps: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Computes a descriptor per position.

        Args:
          maps: float [B, H, W, C].

        Returns:
          Descriptors [B, H, W, features], not normalised, and for `ae` the reconstruction
          [B, H, W, C], else None.
        """
        if self.kind == "none":
            return maps, None
        codes = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="encoder")(maps)
        if self.kind == "fc":
            return codes, None
        decoder = nn.Conv(maps.shape[-1], (1, 1), dtype=self.dtype, name="decoder")
        decoded = decoder(codes)
        return codes, decoded if self.signed else nn.relu(decoded)


class CosineClassifier(nn.Module):
    """Cosines between unit descriptors and unit class vectors, with the scale gamma (section 3.3).

    The class vectors start as in the official code. Their norms do not change the cosines, but
    divide the gradient: the shorter they are, the faster they turn.

    Attributes:
      num_classes: number of classes.
      initial_scale: initial gamma.
    """

    num_classes: int
    initial_scale: float

    @nn.compact
    def __call__(self, descriptors: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps unit vectors [B, D] to cosines [B, classes] and the scalar gamma."""
        init = nn.initializers.glorot_uniform()
        kernel = self.param("kernel", init, (descriptors.shape[-1], self.num_classes))
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), ())
        # Dividing the products by the norms, because unit vectors of all classes would be another
        # array as large as the kernel, and their gradient a second one
        squared = jnp.sum(jnp.square(kernel), axis=0)
        inverse = jax.lax.rsqrt(jnp.maximum(squared, 1e-12))
        return descriptors @ kernel * inverse[None, :], jnp.asarray(scale)


class SoftmaxClassifier(nn.Module):
    """A dense layer to class logits.

    Attributes:
      num_classes: number of classes.
    """

    num_classes: int

    @nn.compact
    def __call__(self, features: jax.Array) -> jax.Array:
        """Maps [B, D] to logits [B, classes]."""
        return nn.Dense(self.num_classes, name="dense")(features)
