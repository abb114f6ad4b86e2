"""Dimensionality reduction of local descriptors: autoencoder, one layer, or none (Table 1)."""

from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

KINDS = ("ae", "fc", "none")


class DimReduction(nn.Module):
    """1x1 convolutions that shorten conv4's vectors and, for `ae`, restore them (section 3.2).

    Attributes:
      kind: `ae` (encoder and decoder), `fc` (one layer, learned by the attention loss alone) or
        `none` (conv4 itself).
      features: C_T, the length of a local descriptor.
      dtype: of the computation.
    """

    kind: str
    features: int
    dtype: Any = jnp.float32

    @nn.compact
    def __call__(self, maps: jax.Array) -> tuple[jax.Array, jax.Array | None]:
        """Shortens every position.

        Args:
          maps: float [B, H, W, C].

        Returns:
          Descriptors [B, H, W, features], not normalised, and for `ae` the reconstruction
          [B, H, W, C], else None.
        """
        if self.kind == "none":
            return maps, None
        codes = nn.Conv(self.features, (1, 1), dtype=self.dtype, name="encoder")(maps)
        if self.kind == "fc":
            return codes, None
        decoder = nn.Conv(maps.shape[-1], (1, 1), dtype=self.dtype, name="decoder")
        return codes, nn.relu(decoder(codes))
