"""The global loss: ArcFace margin on cosines, scaled softmax, cross-entropy (section 3.3)."""

import jax
import jax.numpy as jnp
import optax

_SINE_FLOOR = 1e-6  # squared sine below which the gradient of the root is held finite


def add_margin(cosines: jax.Array, labels: jax.Array, margin: float) -> jax.Array:
    """Adds the ArcFace margin to the angle of the true class (equation 2).

    The margin is left out where the angle would pass pi, as in the official code. Value and
    gradient are finite for every cosine in [-1, 1].

    Args:
      cosines: float32 [B, classes].
      labels: int [B].
      margin: m, radians, in [0, pi].

    Returns:
      float32 [B, classes].
    """
    cosines = jnp.clip(cosines, -1.0, 1.0)
    sines = jnp.sqrt(jnp.maximum(1.0 - jnp.square(cosines), _SINE_FLOOR))
    rotated = cosines * jnp.cos(margin) - sines * jnp.sin(margin)
    rotated = jnp.where(cosines >= -jnp.cos(margin), rotated, cosines)
    is_true = jax.nn.one_hot(labels, cosines.shape[-1], dtype=bool)
    return jnp.where(is_true, rotated, cosines)


def arcface_loss(
    cosines: jax.Array, labels: jax.Array, scale: jax.Array, margin: float
) -> jax.Array:
    """Cross-entropy of scaled cosines with margin (equation 3).

    Args:
      cosines: float32 [B, classes], between unit descriptors and unit class vectors.
      labels: int [B].
      scale: gamma, scalar.
      margin: m, radians; 0 gives the plain cosine classifier.

    Returns:
      float32 [B].
    """
    logits = scale * add_margin(cosines, labels, margin)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
