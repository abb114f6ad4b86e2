"""Search: global descriptors, local descriptors, and the similarity graph of a database."""

from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import SimilarityKernel

__all__ = ["SimilarityGraph", "SimilarityKernel"]
