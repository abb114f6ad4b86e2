"""The chance that a wrong image has as many inliers as one that was found.

RANSAC finds inliers in every pair of images: the more features, the more of them. How many, depends
on the network, the settings and the photographs, so that it is learned from pairs of images which
show different things.
"""

import dataclasses
import math
from typing import Self

import numpy as np

# Most wrong images in so many that reach a level. A short list has 100: by chance, one of them
# reaches `weak`, and one in a hundred lists has one that reaches `strong`
LEVELS = {"strong": 1e-4, "weak": 1e-2}
CHANCE = "chance"  # the level below
LEAST_PAIRS = 40  # fewer tell nothing about rare counts

_GROUPS = 4  # of pairs by number of features, to see how inliers grow with them
_BULK = 0.8  # share of the pairs that are counted; the tail is above


@dataclasses.dataclass(frozen=True)
class ChanceModel:
    """Inliers of pairs of images that show different things.

    The tail, the fifth of the pairs with the most inliers, begins at a number that grows with the
    logarithm of the features. The excess over it hardly depends on them, and is taken as
    exponentially distributed, as that of maxima over many hypotheses. Its scale is learned from its
    median, which a few pairs that show the same place after all hardly move.

    Attributes:
      base: inliers of a query with one feature, at which the tail begins.
      slope: further ones each time the features double.
      excesses: inliers above the beginning of the tail, of all pairs, ascending.
      scale: of the tail, in inliers.
    """

    base: float
    slope: float
    excesses: tuple[float, ...]
    scale: float

    @classmethod
    def fit(cls, features: np.ndarray, inliers: np.ndarray) -> Self | None:
        """Learns from pairs that show different things.

        Args:
          features: int [P], of the image that takes the role of the query.
          inliers: int [P], of each pair, without a minimum.

        Returns:
          The model; None for fewer than `LEAST_PAIRS` pairs.
        """
        if len(features) < LEAST_PAIRS:
            return None
        order = np.argsort(features, kind="stable")
        doublings = np.log2(np.maximum(np.asarray(features, np.float64), 1.0))
        inliers = np.asarray(inliers, np.float64)
        groups = np.array_split(order, _GROUPS)
        sizes = np.array([doublings[group].mean() for group in groups])
        begins = np.array([np.quantile(inliers[group], _BULK) for group in groups])
        spread = ((sizes - sizes.mean()) ** 2).sum()
        slope = ((sizes - sizes.mean()) * begins).sum() / spread if spread else 0.0
        slope = max(float(slope), 0.0)
        base = float(begins.mean() - slope * sizes.mean())
        excesses = np.sort(inliers - np.maximum(base + slope * doublings, 0.0))
        above = excesses[excesses > 0]
        median = float(np.median(above)) if above.size else 0.0
        scale = max(median / math.log(2), 1.0)  # where all are alike, the next is one more
        return cls(base, slope, tuple(excesses.tolist()), scale)

    def begin(self, features: float) -> float:
        """Inliers at which the tail begins, of a query with so many features."""
        return max(self.base + self.slope * math.log2(max(features, 1)), 0.0)

    def chance(self, inliers: np.ndarray, features: float) -> np.ndarray:
        """The share of wrong images that have at least so many inliers.

        Args:
          inliers: int [M].
          features: of the query.

        Returns:
          Float64 [M] in (0, 1]; it never increases with the inliers.
        """
        pairs = len(self.excesses)
        excess = np.asarray(inliers, np.float64) - self.begin(features)
        reached = pairs - np.searchsorted(np.array(self.excesses), excess, side="left")
        tail = self._tail_share() * np.exp(-np.maximum(excess, 0.0) / self.scale)
        share = np.where(excess <= 0, (reached + 1) / (pairs + 1), tail)
        return np.where(np.asarray(inliers) > 0, share, 1.0)

    def least(self, level: str, features: float) -> int:
        """The least number of inliers that reaches one of `LEVELS`."""
        excess = self.scale * max(math.log(self._tail_share() / LEVELS[level]), 0.0)
        return max(math.ceil(self.begin(features) + excess), 1)

    def levels(self, inliers: np.ndarray, features: float) -> list[str]:
        """The level of each count: `strong`, `weak` or `chance`.

        Args:
          inliers: int [M].
          features: of the query.
        """
        least = {level: self.least(level, features) for level in LEVELS}
        return [
            next((level for level, count in least.items() if found >= count), CHANCE)
            for found in np.asarray(inliers).tolist()
        ]

    def _tail_share(self) -> float:
        """The share of pairs in the tail; never zero."""
        return (sum(excess > 0 for excess in self.excesses) + 1) / (len(self.excesses) + 1)
