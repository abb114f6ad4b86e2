"""Classifiers that exist for training only: cosine for the global, softmax for the local head."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from delg_jax.models.pooling import l2_normalize


class CosineClassifier(nn.Module):
    """Cosines between unit descriptors and unit class vectors, with the scale gamma (section 3.3).

    Attributes:
      num_classes: number of classes.
      initial_scale: gamma at the start.
    """

    num_classes: int
    initial_scale: float

    @nn.compact
    def __call__(self, descriptors: jax.Array) -> tuple[jax.Array, jax.Array]:
        """Maps unit vectors [B, D] to cosines [B, classes] and the scalar gamma."""
        init = nn.initializers.lecun_normal()
        kernel = self.param("kernel", init, (descriptors.shape[-1], self.num_classes))
        scale = self.param("scale", nn.initializers.constant(self.initial_scale), ())
        return descriptors @ l2_normalize(kernel, axis=0), jnp.asarray(scale)


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
