"""Kernels that turn the best cosine of a local feature into its vote for an image."""

import dataclasses
import logging
import math

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import WrongField
from delg_jax.features.local_features import LocalFeatures

KINDS = ("identity", "threshold", "power", "cann")

CANN_CURVE = 0.459176  # p1 of the original code
MAX_POWER = 1000  # cosines that rounding puts above 1 stay near 1
_LOG = logging.getLogger(__name__)
_SAMPLED_IMAGES = 100  # whose descriptors show whether a threshold selects
_UNSELECTIVE_SHARE = 0.5  # of the threshold; above it, unrelated descriptors often match


@dataclasses.dataclass(frozen=True)
class SimilarityKernel:
    """A scalar kernel k on cosines; hashable, so it can be a static argument of a jitted function.

    The power kernel with a threshold is the selectivity function of ASMK (Tolias, Avrithis,
    Jegou, "To aggregate or not to aggregate", ICCV 2013), cann that of constrained approximate
    nearest neighbours (Aiger, Araujo, Lynen, ICCV 2023).

    Attributes:
      kind: identity k(u) = u; threshold k(u) = u above `threshold`, else 0;
        power k(u) = `sign(u) |u|^power` above `threshold`, else 0; cann k(u) = `cann_vote` of the
        distance sqrt(2 - 2 u).
      threshold: cosine tau; only cosines above it have a vote.
      power: exponent alpha.
      reach: p0 of cann, the distance of unit vectors at which votes reach 0.
      curve: p1 of cann, in (0, 1); smaller values favour near neighbours more.
    """

    kind: str = "identity"
    threshold: float = 0.0
    power: float = 1.0
    reach: float = 1.0
    curve: float = CANN_CURVE

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if self.kind not in KINDS:
            raise WrongField("kind", self.kind, f"must be one of {', '.join(KINDS)}")
        if self.reach <= 0:
            raise WrongField("reach", self.reach, "must be positive")
        if not 0 < self.curve < 1:
            raise WrongField("curve", self.curve, "must lie in (0, 1)")
        if not 0 <= self.power <= MAX_POWER:
            raise WrongField("power", self.power, f"must lie in [0, {MAX_POWER}]")

    def __call__(self, cosines: jax.Array) -> jax.Array:
        """Applies the kernel elementwise to float32 cosines of any shape."""
        if self.kind == "identity":
            return cosines
        if self.kind == "cann":
            distances = jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosines, 0.0))
            return cann_vote(distances, self.reach, self.curve)
        votes = cosines
        if self.kind == "power":
            votes = jnp.sign(cosines) * jnp.abs(cosines) ** self.power
        return jnp.where(cosines > self.threshold, votes, 0.0)

    @property
    def least(self) -> float:
        """The largest cosine whose vote is always 0; minus infinity if there is none."""
        if self.kind == "identity":
            return -math.inf
        return 1.0 - self.reach**2 / 2 if self.kind == "cann" else self.threshold


def cann_vote(distances: jax.Array, reach: float, curve: float) -> jax.Array:
    """(1 - (r / p0)^(p1 / (1 - p1)))^((1 - p1) / p1), 1 at r = 0, and 0 from r = p0 on.

    Args:
      distances: r, float of any shape, at least 0.
      reach: p0, on the scale of the distances.
      curve: p1, in (0, 1).

    Returns:
      float of the same shape, in [0, 1].
    """
    exponent = curve / (1.0 - curve)
    share = jnp.minimum(jnp.asarray(distances) / reach, 1.0)
    return (1.0 - share**exponent) ** (1.0 / exponent)


def mean_cosine(database: LocalFeatures, images: int = _SAMPLED_IMAGES) -> float:
    """The mean cosine of two random descriptors, estimated on evenly spaced images.

    A direction common to all descriptors makes any two similar.

    Args:
      database: LocalFeatures [N, K], unit norm; arrays or rows on disk.
      images: sampled, at most.

    Returns:
      The squared length of the mean descriptor; 0 if there are none.
    """
    count = len(database.mask)
    chosen = np.unique(np.linspace(0, count - 1, min(images, count)).astype(int))
    if not len(chosen):
        return 0.0
    mask = np.asarray(database.mask[chosen])
    descriptors = np.asarray(database.descriptors[chosen])[mask].astype(np.float32)
    mean = descriptors.sum(axis=0) / max(len(descriptors), 1)
    return float(mean @ mean)


def warn_if_unselective(database: LocalFeatures, kernel: SimilarityKernel) -> None:
    """Logs what to do if the descriptors are so similar that the kernel's threshold hardly selects.

    Args:
      database: LocalFeatures [N, K]; only floats are checked.
      kernel: of the local similarity.
    """
    if kernel.kind != "threshold" or database.descriptors.dtype.kind != "f":
        return
    cosine = mean_cosine(database)
    if cosine > _UNSELECTIVE_SHARE * kernel.threshold:
        _LOG.warning(
            "two local descriptors have a cosine of %.2f on average, so that "
            "config.search.threshold = %g hardly selects: set config.extract.pca_dim, which "
            "removes their common direction, or raise the threshold",
            cosine,
            kernel.threshold,
        )
