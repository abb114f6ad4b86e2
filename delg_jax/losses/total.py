"""The weighted sum of all losses: L_g + lambda L_r + beta L_a (section 3.3)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp

from delg_jax.losses.arcface import arcface_loss
from delg_jax.losses.classification import is_correct, softmax_loss
from delg_jax.losses.reconstruction import reconstruction_loss


@dataclasses.dataclass(frozen=True)
class LossWeights:
    """Weights of the losses and the margin.

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
    """Computes every loss and the accuracies of a batch.

    Args:
      outputs: `DelgOutputs` of the batch.
      global_scores: (cosines, gamma) for ArcFace, or logits [B, classes] for softmax.
      local_logits: float32 [B, classes]; None without a local head.
      labels: int [B].
      weights: of the losses.
      stop_target: whether the reconstruction's target is held fixed.

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
