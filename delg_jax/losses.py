"""Losses: ArcFace, softmax, reconstruction, and their sum."""

import dataclasses
import functools
from typing import Any, Self

import jax
import jax.numpy as jnp
import ml_collections
import optax

from delg_jax.models.class_shards import ClassShards
from delg_jax.models.delg import DelgOutputs

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
      labels: int [B]; a label that is not a column gets no margin.
      margin: m, radians, in [0, pi].

    Returns:
      float32 [B, classes].
    """
    is_true = _is_true(labels, cosines)
    cosines = jnp.clip(cosines, -1.0, 1.0)
    true = jnp.sum(jnp.where(is_true, cosines, 0.0), axis=-1)
    sines = jnp.sqrt(jnp.maximum(1.0 - jnp.square(true), _SINE_FLOOR))
    rotated = true * jnp.cos(margin) - sines * jnp.sin(margin)
    rotated = jnp.where(true >= -jnp.cos(margin), rotated, true)
    return jnp.where(is_true, rotated[:, None], cosines)


def _is_true(labels: jax.Array, scores: jax.Array) -> jax.Array:
    """Whether a column of scores [B, classes] is the label's, bool [B, classes]."""
    return labels[:, None] == jnp.arange(scores.shape[-1])[None, :]


def arcface_loss(
    cosines: jax.Array,
    labels: jax.Array,
    scale: jax.Array,
    margin: float,
    shards: ClassShards | None = None,
) -> jax.Array:
    """Cross-entropy of scaled cosines with margin (equation 3).

    Args:
      cosines: float32 [B, classes], between unit descriptors and unit class vectors.
      labels: int [B].
      scale: gamma, scalar.
      margin: m, radians; 0 for the cosine classifier without margin.
      shards: see `softmax_loss`.

    Returns:
      float32 [B].
    """
    columns = labels if shards is None else labels - shards.first_class()
    return softmax_loss(scale * add_margin(cosines, columns, margin), labels, shards)


def softmax_loss(
    logits: jax.Array, labels: jax.Array, shards: ClassShards | None = None
) -> jax.Array:
    """Cross-entropy of logits against labels.

    Args:
      logits: float32 [B, classes].
      labels: int [B].
      shards: if given, logits are [devices * B, classes of this device] and labels
        [devices * B], of all devices of the host.

    Returns:
      float32 [B], of this device's images.
    """
    if shards is None:
        return optax.softmax_cross_entropy_with_integer_labels(logits, labels)
    logits = shards.without_padding(logits)
    return _split_cross_entropy(logits, labels - shards.first_class(), shards)


# The gradient is written out because it needs no collective but that of the cotangents, and because
# it must be that of the losses of all devices, whatever the transpose of a collective is
@functools.partial(jax.custom_vjp, nondiff_argnums=(2,))
def _split_cross_entropy(logits: jax.Array, columns: jax.Array, shards: ClassShards) -> jax.Array:
    return _split_forward(logits, columns, shards)[0]


def _split_forward(
    logits: jax.Array, columns: jax.Array, shards: ClassShards
) -> tuple[jax.Array, Any]:
    highest = shards.max(jnp.max(logits, axis=-1))
    exponentials = jnp.sum(jnp.exp(logits - highest[:, None]), axis=-1)
    true = jnp.sum(jnp.where(_is_true(columns, logits), logits, 0.0), axis=-1)
    exponentials, true = shards.sum((exponentials, true))
    normaliser = highest + jnp.log(exponentials)
    return shards.own(normaliser - true), (logits, columns, normaliser)


def _split_backward(shards: ClassShards, residuals: Any, cotangents: jax.Array) -> Any:
    logits, columns, normaliser = residuals
    excess = jnp.exp(logits - normaliser[:, None]) - _is_true(columns, logits)
    return excess * shards.gather(cotangents)[:, None], None


_split_cross_entropy.defvjp(_split_forward, _split_backward)


def is_correct(
    scores: jax.Array, labels: jax.Array, shards: ClassShards | None = None
) -> jax.Array:
    """Whether the label has the highest score; of equal scores, that of the lower class wins.

    Args:
      scores: float32 [B, classes].
      labels: int [B].
      shards: see `softmax_loss`.

    Returns:
      bool [B], of this device's images.
    """
    if shards is None:
        return jnp.argmax(scores, axis=-1) == labels
    # The maximum over devices has no gradient, which nobody needs
    scores = jax.lax.stop_gradient(shards.without_padding(scores))
    best = jnp.max(scores, axis=-1)
    winner = jnp.argmax(scores, axis=-1) + shards.first_class()
    winner = shards.min(jnp.where(best == shards.max(best), winner, shards.classes))
    return shards.own(winner == labels)


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

    A head whose losses all have weight 0 is not computed.

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

    @classmethod
    def of(cls, train: ml_collections.ConfigDict) -> Self:
        """The weights of `config.train`; zero for a head that does not learn."""
        return cls(
            global_loss=train.global_weight * (train.heads != "local"),
            reconstruction=train.reconstruction_weight * (train.heads != "global"),
            attention=train.attention_weight * (train.heads != "global"),
            margin=train.arcface_margin,
        )

    @property
    def which(self) -> str:
        """The heads to compute, for `Delg.classify`."""
        if not self.global_loss:
            return "local"
        return "joint" if self.reconstruction or self.attention else "global"


def total_loss(
    outputs: DelgOutputs,
    labels: jax.Array,
    weights: LossWeights,
    stop_target: bool,
    shards: ClassShards | None = None,
) -> tuple[jax.Array, dict[str, jax.Array]]:
    """Computes the losses and accuracies of a batch.

    Args:
      outputs: of the batch, with the logits of the heads that were computed.
      labels: int [B].
      weights: of the losses.
      stop_target: whether to stop the gradient into the target of the reconstruction.
      shards: how the classes are split over devices; None if they are not.

    Returns:
      The total per image, float32 [B], and metrics by name, each float32 [B].
    """
    known = labels if shards is None else shards.gather(labels)
    total, metrics = jnp.zeros(labels.shape), {}
    if outputs.global_logits is not None:
        if outputs.scale is None:
            loss = softmax_loss(outputs.global_logits, known, shards)
        else:
            metrics["scale"] = jnp.broadcast_to(outputs.scale, labels.shape)
            loss = arcface_loss(outputs.global_logits, known, outputs.scale, weights.margin, shards)
        metrics["global_loss"] = loss
        correct = is_correct(outputs.global_logits, known, shards)
        metrics["global_accuracy"] = correct.astype(jnp.float32)
        total = _add(total, weights.global_loss, loss)
    if outputs.local_logits is not None:
        metrics["attention_loss"] = softmax_loss(outputs.local_logits, known, shards)
        correct = is_correct(outputs.local_logits, known, shards)
        metrics["attention_accuracy"] = correct.astype(jnp.float32)
        total = _add(total, weights.attention, metrics["attention_loss"])
    if outputs.reconstruction is not None:
        target = jax.lax.stop_gradient(outputs.conv4) if stop_target else outputs.conv4
        metrics["reconstruction_loss"] = reconstruction_loss(outputs.reconstruction, target)
        total = _add(total, weights.reconstruction, metrics["reconstruction_loss"])
    metrics["loss"] = total
    return total, metrics


def _add(total: jax.Array, weight: float, loss: jax.Array) -> jax.Array:
    """The total with a weighted loss; without it if the weight is 0, because 0 * NaN is NaN."""
    return total + weight * loss if weight else total
