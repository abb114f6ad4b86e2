"""Results of each method of each run, side by side for runs on the same data."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, landmarks_of
from delg_jax.evaluation import revisited
from delg_jax.reports.workdir_results import ALL, WorkdirResults


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
