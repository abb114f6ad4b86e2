"""Results of each method of each run, side by side for runs on the same data.

And those of each query: its top images, and the order of queries in a report.
"""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, landmarks_of, protocol_sets
from delg_jax.errors import require_choice
from delg_jax.evaluation import revisited
from delg_jax.reports.workdir_results import ALL, WorkdirResults

WRONG, RIGHT, IGNORED, UNKNOWN = range(4)
CHOICES = ("changed", "worst", "best")


@dataclasses.dataclass(frozen=True)
class MethodResult:
    """Results of one method of one run.

    Attributes:
      run: index of the run in its group.
      method: for example `global+sp`.
      rankings: int [Q, N] by protocol.
      precisions: average precision of each query in percent by protocol, or None.
      first_stage: index of the result that this method re-ranks, or None.
      baseline: index of the result of the same method in the first run, or None.
      landmarks: int [Q], the landmark of each query; None if unknown.
    """

    run: int
    method: str
    rankings: dict[str, np.ndarray]
    precisions: dict[str, list[float | None]]
    first_stage: int | None
    baseline: int | None
    landmarks: np.ndarray | None = None

    @property
    def reference(self) -> int | None:
        """Index of the result that this one is compared with: first stage, else baseline."""
        return self.baseline if self.first_stage is None else self.first_stage


def group_runs(runs: Sequence[WorkdirResults]) -> list[list[int]]:
    """Groups the runs that have rankings by their queries and images; indices of `runs`."""
    groups: list[list[int]] = []
    for number, run in enumerate(runs):
        if not run.rankings:
            continue
        same = [group for group in groups if runs[group[0]].names == run.names]
        if same:
            same[0].append(number)
        else:
            groups.append([number])
    return groups


def ground_truth(runs: Sequence[WorkdirResults]) -> list[dict[str, Any]] | None:
    """Ground truth of the first run of a group whose data could be opened; None if none could."""
    opened = [run.data for run in runs if run.data is not None]
    return opened[0].ground_truth if opened else None


def collect_results(runs: Sequence[WorkdirResults]) -> list[MethodResult]:
    """The results of a group.

    Args:
      runs: on the same data, with rankings.

    Returns:
      Run by run, in the order of the methods.
    """
    truth = ground_truth(runs)
    places: dict[tuple[int, str], int] = {}
    for number, run in enumerate(runs):
        for method in run.rankings:
            places[number, method] = len(places)
    results = []
    for number, method in places:
        first_stage = method.partition("+")[0]
        rankings = _by_protocol(runs[number].rankings[method])
        results.append(
            MethodResult(
                run=number,
                method=method,
                rankings=rankings,
                precisions=_precisions(runs[number].metrics, method, rankings, truth),
                first_stage=places.get((number, first_stage)) if first_stage != method else None,
                baseline=places.get((0, method)) if number else None,
                landmarks=_landmarks(runs[number].metrics, truth),
            )
        )
    return results


def mean_precisions(results: Sequence[MethodResult], protocol: str) -> np.ndarray:
    """Mean over methods of the average precision of each query, float [Q]; NaN if unknown."""
    values = np.array([result.precisions[protocol] for result in results], np.float64)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def changes(results: Sequence[MethodResult], number: int, protocol: str) -> np.ndarray:
    """Gain of a result over its reference on each query, percent [Q]; NaN if unknown."""
    mine = np.array(results[number].precisions[protocol], np.float64)
    reference = results[number].reference
    if reference is None:
        return np.full(mine.shape, np.nan)
    return mine - np.array(results[reference].precisions[protocol], np.float64)


def _by_protocol(rankings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    shared = rankings[ALL] if ALL in rankings else next(iter(rankings.values()))
    return {protocol: rankings.get(protocol, shared) for protocol in PROTOCOLS}


def _landmarks(metrics: dict[str, Any], truth: list[dict[str, Any]] | None) -> np.ndarray | None:
    """Landmarks of the queries from `metrics.json`, else of the ground truth, else unknown."""
    if "query_landmarks" in metrics:
        return np.array(metrics["query_landmarks"], np.int64)
    return None if truth is None else landmarks_of(truth)


def _precisions(
    metrics: dict[str, Any],
    method: str,
    rankings: dict[str, np.ndarray],
    truth: list[dict[str, Any]] | None,
) -> dict[str, list[float | None]]:
    """Average precisions from `metrics.json`, else computed, else unknown."""
    stored = metrics.get("average_precisions", {}).get(method, {})
    result = {}
    for protocol, ranking in rankings.items():
        queries = len(ranking)
        values = stored.get(protocol)
        if values is None and truth is not None:
            fractions: Any = revisited.evaluate(ranking.T, truth, ())[protocol]["aps"]
            values = [None if value is None else 100 * value for value in fractions]
        if values is None or len(values) != queries:
            values = [None] * queries
        result[protocol] = values
    return result


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


def choose_queries(
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
