"""Published weights: reading their files, naming schemes, and conversion."""

from delg_jax.models.weights.convert import convert
from delg_jax.models.weights.mismatch import convention_of
from delg_jax.models.weights.read import read_arrays, read_mapping

__all__ = ["convention_of", "convert", "read_arrays", "read_mapping"]
