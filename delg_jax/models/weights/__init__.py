"""Published weights: where they are, reading their files, naming schemes, and conversion."""

from delg_jax.models.weights.convert import convert
from delg_jax.models.weights.identify import Identity, convention_of, head_fields, identify
from delg_jax.models.weights.published import PUBLISHED, locate
from delg_jax.models.weights.read import read_arrays, read_mapping

__all__ = [
    "PUBLISHED",
    "Identity",
    "convention_of",
    "convert",
    "head_fields",
    "identify",
    "locate",
    "read_arrays",
    "read_mapping",
]
