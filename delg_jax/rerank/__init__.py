"""Re-ranking: spatial verification of a short list, and similarity embeddings of it."""

from delg_jax.rerank.mds_settings import MdsSettings
from delg_jax.rerank.spatial_settings import SpatialSettings

__all__ = ["MdsSettings", "SpatialSettings"]
