"""Losses: ArcFace, softmax, reconstruction, and their sum."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import optax

__all__ = [
    "LossWeights",
    "add_margin",
    "arcface_loss",
    "is_correct",
    "reconstruction_loss",
    "softmax_loss",
    "total_loss",
]


_SINE_FLOOR = 1e-6  # lower bound of the squared sine, which keeps the gradient of its root finite


def add_margin(cosines: jax.Array, labels: jax.Array, margin: float) -> jax.Array:
    """Adds the ArcFace margin to the angle of the true class (equation 2).

    The margin is not added where the angle would exceed pi, as in the official code. Value and
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
      margin: m, radians; 0 for the cosine classifier without margin.

    Returns:
      float32 [B].
    """
    logits = scale * add_margin(cosines, labels, margin)
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy [B] of logits [B, classes] against integer labels [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def is_correct(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the label has the highest of scores [B, classes], bool [B]."""
    return jnp.argmax(scores, axis=-1) == labels


def reconstruction_loss(reconstruction: jax.Array, target: jax.Array) -> jax.Array:
    """Mean squared error over positions and channels of each image.

    `total_loss` decides whether a gradient reaches the target.

    Args:
      reconstruction: S' of the paper, [B, H, W, C].
      target: S of the paper, [B, H, W, C].

    Returns:
      float32 [B].
    """
    error = reconstruction.astype(jnp.float32) - target.astype(jnp.float32)
    return jnp.mean(jnp.square(error), axis=(1, 2, 3))


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the losses, and the ArcFace margin.

    Attributes:
      global_loss: of L_g.
      reconstruction: lambda, of L_r.
      attention: beta, of L_a.
      margin: m of ArcFace, radians.
    """

    global_loss: float
    reconstruction: float
    attention: float
    margin: float


def total_loss(
    outputs: Any,
    global_scores: Any,
    local_logits: jax.Array | None,
    labels: jax.Array,
    weights: LossWeights,
    stop_target: bool,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes all losses and accuracies of a batch.

    Args:
      outputs: `DelgOutputs` of the batch.
      global_scores: (cosines, gamma) for ArcFace, or logits [B, classes] for softmax.
      local_logits: float32 [B, classes]; None without a local head.
      labels: int [B].
      weights: of the losses.
      stop_target: whether to stop the gradient into the target of the reconstruction.

    Returns:
      The total per image, float32 [B], and metrics by name, each float32 [B].
    """
    if isinstance(global_scores, tuple):
        scores, scale = global_scores
        global_loss = arcface_loss(scores, labels, scale, weights.margin)
        metrics = {"scale": jnp.broadcast_to(scale, labels.shape)}
    else:
        scores = global_scores
        global_loss, metrics = softmax_loss(scores, labels), {}
    metrics["global_loss"] = global_loss
    metrics["global_accuracy"] = is_correct(scores, labels).astype(jnp.float32)
    total = weights.global_loss * global_loss
    if local_logits is not None:
        metrics["attention_loss"] = softmax_loss(local_logits, labels)
        metrics["attention_accuracy"] = is_correct(local_logits, labels).astype(jnp.float32)
        total = total + weights.attention * metrics["attention_loss"]
        if outputs.reconstruction is not None:
            target = jax.lax.stop_gradient(outputs.conv4) if stop_target else outputs.conv4
            metrics["reconstruction_loss"] = reconstruction_loss(outputs.reconstruction, target)
            total = total + weights.reconstruction * metrics["reconstruction_loss"]
    metrics["loss"] = total
    return total, metrics
