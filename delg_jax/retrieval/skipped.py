"""What has no features: it improves no metric, and metrics say how much of it there was.

An image is skipped that cannot be used. For local search, so is one without local features.
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
    """Takes what has no features out of rankings: it finds nothing, and is not found.

    Args:
      ranked: of a method.
      extracted: features.
      kind: of those that the method searches by, global or local.

    Returns:
      The rankings with -1 in the place of such images, and for all places of such queries; the
      similarities there are minus infinity.
    """
    images, queries = extracted.database.present(kind), extracted.queries.present(kind)
    if images.all() and queries.all():
        return ranked
    absent = ~images

    def out(ranks: np.ndarray) -> np.ndarray:
        return absent[ranks] | ~queries[:, None]

    by_protocol = {name: np.where(out(r), -1, r) for name, r in ranked.by_protocol.items()}
    similarities = ranked.similarities
    if similarities is not None:
        similarities = np.where(out(ranked.by_protocol["all"]), np.float32(-np.inf), similarities)
    return ranked._replace(by_protocol=by_protocol, similarities=similarities)


def count(extracted: Extracted, kind: str) -> dict[str, int]:
    """How much has no features.

    Args:
      extracted: features.
      kind: of the features, global or local.

    Returns:
      `images` of the database, `queries`, and `positives`: pairs of a query and an image that it
      should find, where the image has none. Those that data could not be prepared of are among
      them.
    """
    data = extracted.data
    present, asked = extracted.database.present(kind), extracted.queries.present(kind)
    unprepared = 0 if data.answers is None else len(data.answers) - len(asked)
    return {
        "images": int((~present).sum()) + data.skipped,
        "queries": int((~asked).sum()) + unprepared,
        "positives": _positives(data, present),
    }


def _positives(data: RetrievalData, present: np.ndarray) -> int:
    if data.answers is not None and data.landmarks is None:
        names = data.database.names
        there = {name for name, usable in zip(names, present, strict=True) if usable}
        return sum(image not in there for images in data.answers.values() for image in images)
    wanted = (protocol_sets(entry, "medium")[0] for entry in data.ground_truth)
    return sum(int((~present[images]).sum()) for images in wanted)


def line(result: dict[str, Any]) -> str:
    """What a result says of it, for below a table; "" if nothing was skipped.

    Args:
      result: what `evaluation.evaluate` returns, or returned before it counted.
    """
    return "\n".join(
        f"skipped in {kind} search, and counted as not found: {counts['images']} database images "
        f"({counts['positives']} times one to be found), {counts['queries']} queries"
        for kind, counts in result.get("skipped", {}).items()
        if any(counts.values())
    )
