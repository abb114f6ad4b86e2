"""Softmax cross-entropy: the attention loss (equation 6) and the softmax row of Table 2."""

import jax
import jax.numpy as jnp
import optax


def softmax_loss(logits: jax.Array, labels: jax.Array) -> jax.Array:
    """Cross-entropy [B] of logits [B, classes] against integer labels [B]."""
    return optax.softmax_cross_entropy_with_integer_labels(logits, labels)


def is_correct(scores: jax.Array, labels: jax.Array) -> jax.Array:
    """Whether the highest of scores [B, classes] is that of the label, bool [B]."""
    return jnp.argmax(scores, axis=-1) == labels
