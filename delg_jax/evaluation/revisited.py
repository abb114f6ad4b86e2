"""Revisited Oxford and Paris: mean average precision and mean precision at k.

Radenovic, Iscen, Tolias, Avrithis, Chum, "Revisiting Oxford and Paris", CVPR 2018.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from delg_jax.data.ground_truth import contradiction

# Protocol -> lists of a ground truth entry that are positives, and those that are ignored
PROTOCOLS = {
    "easy": (("easy",), ("junk", "hard")),
    "medium": (("easy", "hard"), ("junk",)),
    "hard": (("hard",), ("junk", "easy")),
}


def protocol_sets(
    entry: Mapping[str, Sequence[int]], protocol: str
) -> tuple[np.ndarray, np.ndarray]:
    """The images of one query that a protocol wants found, and those that it ignores.

    Args:
      entry: ground truth of the query, lists `easy`, `hard` and `junk` of image indices.
      protocol: easy, medium or hard.

    Returns:
      Positives int64 [P] and ignored int64 [E].

    Raises:
      ValueError: for an unknown protocol.
    """
    if protocol not in PROTOCOLS:
        raise ValueError(f"`protocol` (={protocol!r}) must be one of {', '.join(PROTOCOLS)}")
    positives, ignored = (
        np.concatenate([np.asarray(entry[name], np.int64) for name in names])
        for names in PROTOCOLS[protocol]
    )
    return positives, ignored


def evaluate(
    ranks: np.ndarray,
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    kappas: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[str, object]]:
    """Scores rankings on the three protocols.

    Args:
      ranks: int [N, Q], images of each query from best to worst, one column per query; entries
        of -1 are skipped. Positives that a column leaves out count as not found.
      ground_truth: Q entries with lists `easy`, `hard` and `junk` of image indices.
      kappas: the k of the mean precisions.

    Returns:
      For `easy`, `medium` and `hard`: `map`, `mp@k` for each k, and `aps`, the average precision
      of each query (None for one without positives, which the means leave out). Fractions in
      [0, 1]; the means are NaN if no query has positives.

    Raises:
      ValueError: if the number of columns is not the number of queries, if one has an image twice,
        or if an entry contradicts itself.
    """
    ranks = np.asarray(ranks)
    if ranks.ndim != 2 or ranks.shape[1] != len(ground_truth):
        raise ValueError(
            f"`ranks` (shape {ranks.shape}) must have one column for each of the "
            f"{len(ground_truth)} queries"
        )
    _require_once(ranks, ground_truth)
    return {protocol: _evaluate(ranks, ground_truth, kappas, protocol) for protocol in PROTOCOLS}


def _require_once(ranks: np.ndarray, ground_truth: Sequence[Mapping[str, Sequence[int]]]) -> None:
    """Raises a ValueError for an image that counts twice, or as two things."""
    for number, (column, entry) in enumerate(zip(ranks.T, ground_truth, strict=True)):
        clause = contradiction(entry)
        if clause:
            raise ValueError(f"`ground_truth[{number}]`: {clause}")
        times = np.bincount(column[column >= 0])
        if times.max(initial=0) > 1:
            raise ValueError(f"`ranks` has image {times.argmax()} twice for query {number}")


def _evaluate(
    ranks: np.ndarray,
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    kappas: Sequence[int],
    protocol: str,
) -> dict[str, object]:
    aps: list[float | None] = []
    precisions = []
    for column, entry in zip(ranks.T, ground_truth, strict=True):
        positives, ignored = protocol_sets(entry, protocol)
        if not len(positives):
            aps.append(None)
            continue
        hits = _hits(column, positives, ignored)
        aps.append(average_precision(hits, len(positives)))
        precisions.append([_precision_at(hits, kappa, len(positives)) for kappa in kappas])
    scored = [ap for ap in aps if ap is not None]
    result: dict[str, object] = {"map": float(np.mean(scored)) if scored else float("nan")}
    for position, kappa in enumerate(kappas):
        values = [row[position] for row in precisions]
        result[f"mp@{kappa}"] = float(np.mean(values)) if values else float("nan")
    result["aps"] = aps
    return result


def _hits(column: np.ndarray, positives: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Ranks of the positives, from 0, after the ignored images are taken out."""
    column = column[(column >= 0) & ~np.isin(column, ignored)]
    return np.flatnonzero(np.isin(column, positives))


def average_precision(hits: np.ndarray, positives: int) -> float:
    """Area under the precision-recall curve, by trapezoids.

    Args:
      hits: int [H], ranks of the positives that were found, from 0, ascending.
      positives: number of positives there are, found or not.

    Returns:
      A fraction in [0, 1].
    """
    found = np.arange(len(hits))
    before = np.where(hits == 0, 1.0, found / np.maximum(hits, 1))
    after = (found + 1) / (hits + 1)
    return float((before + after).sum() / (2 * positives))


def _precision_at(hits: np.ndarray, kappa: int, positives: int) -> float:
    """Precision of the first k ranks, or of those up to the last positive if that comes first.

    One that was not found comes after all others, wherever the ranking ends.
    """
    if not len(hits):
        return 0.0
    depth = min(kappa, int(hits[-1]) + 1) if len(hits) == positives else kappa
    return float((hits < depth).sum() / depth)
