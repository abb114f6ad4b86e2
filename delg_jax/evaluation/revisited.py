"""Revisited Oxford and Paris: mean average precision and mean precision at k.

Radenovic, Iscen, Tolias, Avrithis, Chum, "Revisiting Oxford and Paris", CVPR 2018.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, contradiction, landmarks_of, protocol_sets
from delg_jax.evaluation import significance


def evaluate(
    ranks: np.ndarray,
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    kappas: Sequence[int] = (1, 5, 10),
) -> dict[str, dict[str, Any]]:
    """Scores rankings on the three protocols.

    Args:
      ranks: int [N, Q], images from best to worst, one column per query; -1 is skipped.
        Positives that are not in a column count as not found.
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
    """Raises a ValueError for an image ranked twice, or in two lists of the ground truth."""
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
) -> dict[str, Any]:
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
    result: dict[str, Any] = {"map": float(np.mean(scored)) if scored else float("nan")}
    for position, kappa in enumerate(kappas):
        values = [row[position] for row in precisions]
        result[f"mp@{kappa}"] = float(np.mean(values)) if values else float("nan")
    result["aps"] = aps
    return result


def _hits(column: np.ndarray, positives: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """Ranks of the positives, from 0, without the ignored images."""
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

    A positive that was not found counts as beyond the end of the ranking.
    """
    if not len(hits):
        return 0.0
    depth = min(kappa, int(hits[-1]) + 1) if len(hits) == positives else kappa
    return float((hits < depth).sum() / depth)


Metrics = dict[str, dict[str, float | None]]


class Scores(NamedTuple):
    """All numbers of one method, shares in percent; None where nothing is scored.

    Attributes:
      metrics: values by protocol and metric; intervals are of the first metric.
      average_precisions: of each query, by protocol; empty where there are none.
      intervals: 95 % interval of the first metric by protocol, lower and upper bound.
      landmarks: a number for the landmark that each query shows.
    """

    metrics: Metrics
    average_precisions: dict[str, list[float | None]]
    intervals: dict[str, list[float | None]]
    landmarks: list[int]


def by_protocol(
    rankings: Mapping[str, np.ndarray],
    ground_truth: Sequence[Mapping[str, Sequence[int]]],
    kappas: Sequence[int],
) -> Scores:
    """Scores one method on the easy, medium and hard protocol.

    Args:
      rankings: int [Q, N] by protocol, or under "all" for protocols without their own.
      ground_truth: for each query `easy`, `hard` and `junk`.
      kappas: ranks of the mean precisions.

    Returns:
      The scores; metrics are `map` and `mp@k`.
    """
    source = {name: name if name in rankings else "all" for name in PROTOCOLS}
    scored = {
        name: evaluate(rankings[name].T, ground_truth, kappas) for name in set(source.values())
    }
    metrics, precisions = {}, {}
    for protocol in PROTOCOLS:
        values = dict(scored[source[protocol]][protocol])
        precisions[protocol] = [None if ap is None else 100.0 * ap for ap in values.pop("aps")]
        metrics[protocol] = {name: percent(value) for name, value in values.items()}
    landmarks = landmarks_of(ground_truth).tolist()
    bounds = significance.intervals(precisions, landmarks)
    return Scores(metrics, precisions, bounds, landmarks)


def percent(share: float) -> float | None:
    """A share in percent, None for NaN."""
    return significance.number_or_none(100.0 * share)
