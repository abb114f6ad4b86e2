"""What a ranking found first for one query: which images, right or wrong, moved how far."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.data.ground_truth import protocol_sets

WRONG, RIGHT, IGNORED, UNKNOWN = range(4)


class Finding(NamedTuple):
    """One image that was found.

    Attributes:
      image: its number in the database.
      kind: WRONG, RIGHT, IGNORED by the protocol, or UNKNOWN without ground truth.
      rank: from 1, ignored images not counted; 0 for an ignored one.
      before: rank in the first stage; 0 if there is none.
    """

    image: int
    kind: int
    rank: int
    before: int


def findings(
    order: np.ndarray,
    first: np.ndarray | None,
    entry: Mapping[str, Sequence[int]] | None,
    protocol: str,
    top: int,
) -> list[Finding]:
    """The first `top` images of a ranking.

    Args:
      order: int [N], images from best to worst; entries of -1 are skipped.
      first: int [N], the ranking that this one re-ranked, or None.
      entry: ground truth of the query, or None if it is unknown.
      protocol: easy, medium or hard, decides what is right and what is ignored.
      top: images wanted, at most.

    Returns:
      The findings, best first.
    """
    positives, ignored = ([], []) if entry is None else protocol_sets(entry, protocol)
    ranks = _ranks(order, ignored)
    shown = np.flatnonzero(order >= 0)[:top]
    before = {} if first is None else _places(first, order[shown], ignored)
    result = []
    for place in shown:
        image, rank = int(order[place]), int(ranks[place])
        kind = UNKNOWN if entry is None else RIGHT if image in positives else WRONG
        if not rank:
            kind = IGNORED
        result.append(Finding(image, kind, rank, before.get(image, 0) if rank else 0))
    return result


def _ranks(order: np.ndarray, ignored: Sequence[int]) -> np.ndarray:
    """Rank [N] of each entry, from 1, of which ignored ones and -1 have 0."""
    counted = (order >= 0) & ~np.isin(order, ignored)
    return np.where(counted, np.cumsum(counted), 0)


def _places(order: np.ndarray, images: np.ndarray, ignored: Sequence[int]) -> dict[int, int]:
    """Ranks of images in an order."""
    ranks = _ranks(order, ignored)
    at = np.flatnonzero(np.isin(order, images))
    return dict(zip(order[at].tolist(), ranks[at].tolist(), strict=True))
