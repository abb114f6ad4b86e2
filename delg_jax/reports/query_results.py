"""The results of each query: its top images, and the order of queries in a report."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.data.ground_truth import protocol_sets
from delg_jax.errors import require_choice
from delg_jax.reports.method_results import MethodResult, changes, mean_precisions

WRONG, RIGHT, IGNORED, UNKNOWN = range(4)
CHOICES = ("changed", "worst", "best")


class RankedImage(NamedTuple):
    """One image of a ranking.

    Attributes:
      image: index in the database.
      kind: WRONG, RIGHT, IGNORED by the protocol, or UNKNOWN without ground truth.
      rank: from 1, ignored images not counted; 0 for an ignored one.
      before: rank in the first stage; 0 if there is none.
    """

    image: int
    kind: int
    rank: int
    before: int


def top_images(
    order: np.ndarray,
    first_stage: np.ndarray | None,
    entry: Mapping[str, Sequence[int]] | None,
    protocol: str,
    top: int,
) -> list[RankedImage]:
    """The first `top` images of a ranking, best first.

    Args:
      order: int [N], images from best to worst; entries of -1 are skipped.
      first_stage: int [N], the ranking that was re-ranked, or None.
      entry: ground truth of the query, or None if it is unknown.
      protocol: easy, medium or hard; decides what is right and what is ignored.
      top: largest number of images.
    """
    nothing = np.empty(0, np.int64)
    positives, ignored = (nothing, nothing) if entry is None else protocol_sets(entry, protocol)
    ranks = _ranks(order, ignored)
    shown = np.flatnonzero(order >= 0)[:top]
    before = {} if first_stage is None else _ranks_of(order[shown], first_stage, ignored)
    result = []
    for place in shown:
        image, rank = int(order[place]), int(ranks[place])
        kind = UNKNOWN if entry is None else RIGHT if image in positives else WRONG
        if not rank:
            kind = IGNORED
        result.append(RankedImage(image, kind, rank, before.get(image, 0) if rank else 0))
    return result


def _ranks(order: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Rank [N] of each entry, from 1; ignored entries and -1 have rank 0."""
    counted = (order >= 0) & ~np.isin(order, ignored)
    return np.where(counted, np.cumsum(counted), 0)


def _ranks_of(images: np.ndarray, order: np.ndarray, ignored: np.ndarray) -> dict[int, int]:
    """Ranks of some images in a ranking."""
    ranks = _ranks(order, ignored)
    at = np.flatnonzero(np.isin(order, images))
    return dict(zip(order[at].tolist(), ranks[at].tolist(), strict=True))


def choose(
    results: Sequence[MethodResult], by: str, count: int, protocol: str = "medium"
) -> list[int]:
    """Sorts queries by interest; queries without positives come last.

    Args:
      results: of the methods of one group.
      by: `changed`, by the largest change of average precision, up or down, of any method over
        its first stage or over the same method of the first run; `worst` or `best`, by the mean
        average precision over the methods.
      count: number of queries; 0 for all.
      protocol: of the precisions.

    Returns:
      Indices of queries; ties in ascending order.

    Raises:
      UserError: for an unknown choice.
    """
    require_choice("--choose", by, CHOICES)
    if by == "changed":
        moved = np.array([changes(results, number, protocol) for number in range(len(results))])
        value = -np.where(np.isnan(moved), -1.0, np.abs(moved)).max(axis=0)
    else:
        mean = mean_precisions(results, protocol)
        value = np.where(np.isnan(mean), np.inf, mean if by == "worst" else -mean)
    order = np.argsort(value, kind="stable")
    return order[: count or len(order)].tolist()
