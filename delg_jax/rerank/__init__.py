"""Re-ranking: spatial verification of a short list, and similarity embeddings of it."""

from delg_jax.rerank.mds import MdsSettings
from delg_jax.rerank.spatial_verification import SpatialSettings

__all__ = ["MdsSettings", "SpatialSettings"]
