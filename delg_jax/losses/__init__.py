"""Losses: ArcFace, softmax, reconstruction, and their sum."""

from delg_jax.losses.arcface import add_margin, arcface_loss
from delg_jax.losses.classification import is_correct, softmax_loss
from delg_jax.losses.reconstruction import reconstruction_loss
from delg_jax.losses.total import LossWeights, total_loss

__all__ = [
    "LossWeights",
    "add_margin",
    "arcface_loss",
    "is_correct",
    "reconstruction_loss",
    "softmax_loss",
    "total_loss",
]
