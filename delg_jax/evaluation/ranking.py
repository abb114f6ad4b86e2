"""Rankings: what a search or a re-ranking gives."""

import dataclasses
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A ranking of the database for every query.

    Attributes:
      images: int32 [Q, N], best first; fewer where only the first are kept.
      similarities: float32 [Q, N], in the order of `images`; the scores of a re-ranking, minus
        infinity below its short list.
    """

    images: np.ndarray
    similarities: np.ndarray

    def first(self, depth: int) -> "Ranking":
        """The first `depth` images of each query."""
        return Ranking(self.images[:, :depth].copy(), self.similarities[:, :depth].copy())

    def by_scores(self, scores: np.ndarray) -> "Ranking":
        """The short lists sorted by new scores float32 [Q, M], in the order of `images`."""
        count = scores.shape[1]
        order = np.argsort(-scores, axis=1, kind="stable")
        images, similarities = self.images.copy(), np.full(self.images.shape, -np.inf, np.float32)
        images[:, :count] = np.take_along_axis(self.images[:, :count], order, axis=1)
        similarities[:, :count] = np.take_along_axis(scores, order, axis=1)
        return Ranking(images, similarities)


class Ranked(NamedTuple):
    """What a method makes of all queries, to be scored.

    Attributes:
      by_protocol: images int32 [Q, N], best first, by protocol; under "all" where none matters.
      similarities: float32 [Q, N] as of `Ranking`, in the order of "all"; None if only the order
        is known.
      inliers: int32 [Q, M], of the first M images of "all"; None without verification.
    """

    by_protocol: dict[str, np.ndarray]
    similarities: np.ndarray | None = None
    inliers: np.ndarray | None = None
