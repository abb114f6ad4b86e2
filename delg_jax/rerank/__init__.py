"""Re-ranking: spatial verification, similarity embeddings, SuperGlobal, expansion, diffusion."""

from delg_jax.rerank.mds import MdsSettings
from delg_jax.rerank.spatial_verification import SpatialSettings

__all__ = ["MdsSettings", "SpatialSettings"]
