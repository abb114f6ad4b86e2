"""Weights from elsewhere: names, reading and conversion."""

from delg_jax.models.weights.convert import convert
from delg_jax.models.weights.read import read_arrays

__all__ = ["convert", "read_arrays"]
