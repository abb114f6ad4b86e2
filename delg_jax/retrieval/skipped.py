"""Images and queries without features: they never improve a metric, and are counted.

They could not be decoded or, for local search, have no local features.
"""

from typing import Any

import numpy as np

from delg_jax.data import RetrievalData
from delg_jax.data.ground_truth import protocol_sets
from delg_jax.errors import UserError
from delg_jax.features import Extracted
from delg_jax.retrieval.ranking import Ranked


def require_some(extracted: Extracted, kind: str) -> None:
    """Raises a UserError if no database image, or no query, has features of a kind."""
    for part in ("database", "queries"):
        if not getattr(extracted, part).present(kind).any():
            rule = f"have no {kind} features: nothing can be compared"
            if kind == "local":
                rule += "; lower config.extract.attention_threshold, or search by global features"
            raise UserError("features", part, f"all images {rule}")


def mark(ranked: Ranked, extracted: Extracted, kind: str) -> Ranked:
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


def count(extracted: Extracted, kind: str) -> dict[str, int]:
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


def line(result: dict[str, Any]) -> str:
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
