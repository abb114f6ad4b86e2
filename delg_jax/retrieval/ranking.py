"""Rankings, the results of searches and re-rankings.

Images and queries without features, which could not be decoded or have no local features, never
improve a metric, and are counted.
"""

import dataclasses
from typing import Any, NamedTuple

import numpy as np

from delg_jax.data import RetrievalData
from delg_jax.data.ground_truth import protocol_sets
from delg_jax.errors import UserError
from delg_jax.features import Extracted


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
        -1 marks what was skipped, see `mark_skipped`.
      similarities: float32 [Q, N] as in `Ranking`, in the order of "all"; None if unknown.
      inliers: int32 [Q, M], of the first M images of "all"; None without spatial verification.
    """

    by_protocol: dict[str, np.ndarray]
    similarities: np.ndarray | None = None
    inliers: np.ndarray | None = None


def require_features(extracted: Extracted, kind: str) -> None:
    """Raises a UserError if no database image, or no query, has features of a kind."""
    for part in ("database", "queries"):
        if not getattr(extracted, part).present(kind).any():
            rule = f"have no {kind} features: nothing can be compared"
            if kind == "local":
                rule += "; lower config.extract.attention_threshold, or search by global features"
            raise UserError("features", part, f"all images {rule}")


def mark_skipped(ranked: Ranked, extracted: Extracted, kind: str) -> Ranked:
    """Marks images and queries without features in rankings, so that they count as not found.

    Args:
      ranked: rankings of a method.
      extracted: features.
      kind: of the features that the method searches by, global or local.

    Returns:
      The rankings with -1 in place of such images, and everywhere for such queries; similarities
      there are minus infinity.
    """
    images, queries = extracted.database.present(kind), extracted.queries.present(kind)
    if images.all() and queries.all():
        return ranked

    def absent(ranks: np.ndarray) -> np.ndarray:
        return ~images[ranks] | ~queries[:, None]

    by_protocol = {name: np.where(absent(r), -1, r) for name, r in ranked.by_protocol.items()}
    similarities = ranked.similarities
    if similarities is not None:
        similarities = np.where(
            absent(ranked.by_protocol["all"]), np.float32(-np.inf), similarities
        )
    return ranked._replace(by_protocol=by_protocol, similarities=similarities)


def count_skipped(extracted: Extracted, kind: str) -> dict[str, int]:
    """Counts what has no features.

    Args:
      extracted: features.
      kind: of the features, global or local.

    Returns:
      `images` of the database, `queries`, and `positives`: pairs of a query and an image without
      features that it should find. Images that could not be prepared are included.
    """
    data = extracted.data
    images, queries = extracted.database.present(kind), extracted.queries.present(kind)
    unprepared = 0 if data.answers is None else len(data.answers) - len(queries)
    return {
        "images": int((~images).sum()) + data.skipped,
        "queries": int((~queries).sum()) + unprepared,
        "positives": _positives(data, images),
    }


def _positives(data: RetrievalData, present: np.ndarray) -> int:
    if data.answers is not None and data.landmarks is None:
        names = data.database.names
        usable = {name for name, there in zip(names, present, strict=True) if there}
        return sum(image not in usable for images in data.answers.values() for image in images)
    wanted = (protocol_sets(entry, "medium")[0] for entry in data.ground_truth)
    return sum(int((~present[images]).sum()) for images in wanted)


def skipped_line(result: dict[str, Any]) -> str:
    """The counts as a line for each search; "" if nothing was skipped.

    Args:
      result: of `evaluation.evaluate`; earlier versions have no counts.
    """
    return "\n".join(
        f"skipped in {kind} search, and counted as not found: {counts['images']} database images "
        f"({counts['positives']} times one to be found), {counts['queries']} queries"
        for kind, counts in result.get("skipped", {}).items()
        if any(counts.values())
    )
