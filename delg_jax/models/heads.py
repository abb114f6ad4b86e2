"""Heads: attention and dimensionality reduction of conv4, and classifiers (section 3)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from delg_jax.models.pooling import l2_norm, l2_normalize

KINDS = ("ae", "fc", "none")  # of `DimReduction`


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
