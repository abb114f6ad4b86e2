"""Rankings, the results of searches and re-rankings."""

import dataclasses
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A ranking of the database for every query.

    Attributes:
      images: int32 [Q, N], best first; fewer columns if only the first are kept. Images without
        features come last, with similarity minus infinity.
      similarities: float32 [Q, N], in the order of `images`; for a re-ranking its scores, minus
        infinity below the short list.
    """

    images: np.ndarray
    similarities: np.ndarray

    def first(self, depth: int) -> "Ranking":
        """The first `depth` images of each query."""
        if depth >= self.images.shape[1]:
            return self
        return Ranking(self.images[:, :depth].copy(), self.similarities[:, :depth].copy())

    def compared(self) -> "Ranking":
        """Without the columns in which no query has an image with features."""
        return self.first(int((self.similarities > -np.inf).any(axis=0).sum()))

    def followed_by(self, other: "Ranking") -> "Ranking":
        """This ranking, followed by the further columns of another."""
        count = self.images.shape[1]
        if count == other.images.shape[1]:
            return self
        images, similarities = (
            np.concatenate([own, others[:, count:]], axis=1)
            for own, others in (
                (self.images, other.images),
                (self.similarities, other.similarities),
            )
        )
        return Ranking(images, similarities)

    def by_scores(self, scores: np.ndarray) -> "Ranking":
        """The short lists sorted by new scores, float32 [Q, M] in the order of `images`."""
        count = scores.shape[1]
        order = np.argsort(-scores, axis=1, kind="stable")
        images, similarities = self.images.copy(), np.full(self.images.shape, -np.inf, np.float32)
        images[:, :count] = np.take_along_axis(self.images[:, :count], order, axis=1)
        similarities[:, :count] = np.take_along_axis(scores, order, axis=1)
        return Ranking(images, similarities)


def by_similarity(similarities: np.ndarray, present: np.ndarray) -> Ranking:
    """Ranks all images.

    Args:
      similarities: float32 [Q, N], by image.
      present: bool [N], False for images without features, which come last.

    Returns:
      The ranking; ties go to the lower index.
    """
    similarities = np.where(present[None, :], similarities, np.float32(-np.inf))
    images = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return Ranking(images, np.take_along_axis(similarities, images, axis=1))


class Ranked(NamedTuple):
    """The rankings of a method for all queries, by protocol.

    Attributes:
      by_protocol: images int32 [Q, N], best first, by protocol; under "all" where none matters.
        -1 marks what was skipped, see `skipped.mark`.
      similarities: float32 [Q, N] as in `Ranking`, in the order of "all"; None if unknown.
      inliers: int32 [Q, M], of the first M images of "all"; None without spatial verification.
    """

    by_protocol: dict[str, np.ndarray]
    similarities: np.ndarray | None = None
    inliers: np.ndarray | None = None
