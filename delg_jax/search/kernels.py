"""Kernels that turn the best cosine of a local feature into its vote for an image."""

import dataclasses

import jax
import jax.numpy as jnp

KINDS = ("identity", "threshold", "power")


@dataclasses.dataclass(frozen=True)
class SimilarityKernel:
    """A scalar kernel k on cosines; hashable, so it can be a static argument of a jitted function.

    The power kernel with a threshold is the selectivity function of ASMK (Tolias, Avrithis,
    Jegou, "To aggregate or not to aggregate", ICCV 2013).

    Attributes:
      kind: identity k(u) = u; threshold k(u) = u above `threshold`, else 0;
        power k(u) = sign(u) |u|^power above `threshold`, else 0.
      threshold: cosine tau that a vote must exceed.
      power: exponent alpha.
    """

    kind: str = "identity"
    threshold: float = 0.0
    power: float = 1.0

    def __post_init__(self) -> None:
        """Raises a ValueError for an unknown kind."""
        if self.kind not in KINDS:
            raise ValueError(f"`kind` (={self.kind!r}) must be one of {', '.join(KINDS)}")

    def __call__(self, cosines: jax.Array) -> jax.Array:
        """Applies the kernel elementwise to float32 cosines of any shape."""
        if self.kind == "identity":
            return cosines
        votes = cosines
        if self.kind == "power":
            votes = jnp.sign(cosines) * jnp.abs(cosines) ** self.power
        return jnp.where(cosines > self.threshold, votes, 0.0)
