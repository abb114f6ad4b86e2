"""The autoencoder's loss (equation 4)."""

import jax
import jax.numpy as jnp


def reconstruction_loss(reconstruction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error over positions and channels of each image.

    Whether a gradient reaches the target is the model's matter (`config.model.stop_gradient`).

    Args:
      reconstruction: S' of the paper, [B, H, W, C].
      target: S of the paper, [B, H, W, C].

    Returns:
      float32 [B].
    """
    error = reconstruction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=(1, 2, 3))
