"""Lanes: the methods of runs on the same data, side by side."""

import dataclasses
from collections.abc import Sequence

import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.evaluation import revisited
from delg_jax.reports.workdir_results import ALL, Evaluated


@dataclasses.dataclass(frozen=True)
class Lane:
    """One method of one run.

    Attributes:
      run: number of the run in its group.
      method: for example `global+sp`.
      rankings: int [Q, N] by protocol.
      precisions: average precision of each query in percent by protocol, or None.
      first: number of the lane that this one re-ranks, or None.
      rival: number of the lane of the first run with the same method, or None.
    """

    run: int
    method: str
    rankings: dict[str, np.ndarray]
    precisions: dict[str, list[float | None]]
    first: int | None
    rival: int | None

    @property
    def reference(self) -> int | None:
        """The lane that changes are counted from: the first stage, else the rival."""
        return self.rival if self.first is None else self.first


def groups(runs: Sequence[Evaluated]) -> list[list[int]]:
    """Numbers of the runs that have rankings, those of the same queries and images together."""
    found: list[list[int]] = []
    for number, run in enumerate(runs):
        if not run.rankings:
            continue
        same = [group for group in found if runs[group[0]].names == run.names]
        if same:
            same[0].append(number)
        else:
            found.append([number])
    return found


def ground_truth(runs: Sequence[Evaluated]) -> list[dict] | None:
    """Of the first run of a group whose data could be opened; None if none could."""
    opened = [run.data for run in runs if run.data is not None]
    return opened[0].ground_truth if opened else None


def lanes(runs: Sequence[Evaluated]) -> list[Lane]:
    """The lanes of a group.

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
    result = []
    for number, method in places:
        first = method.partition("+")[0]
        result.append(
            Lane(
                run=number,
                method=method,
                rankings=_by_protocol(runs[number].rankings[method]),
                precisions=_precisions(runs[number], method, truth),
                first=places.get((number, first)) if first != method else None,
                rival=places.get((0, method)) if number else None,
            )
        )
    return result


def mean_precisions(sides: Sequence[Lane], protocol: str) -> np.ndarray:
    """Average precision of each query, the mean over the lanes that have one, float [Q] or NaN."""
    values = np.array([lane.precisions[protocol] for lane in sides], np.float64)
    known = ~np.isnan(values)
    total = np.where(known, values, 0.0).sum(axis=0)
    return np.where(known.any(axis=0), total / np.maximum(known.sum(axis=0), 1), np.nan)


def changes(sides: Sequence[Lane], lane: int, protocol: str) -> np.ndarray:
    """What a lane gains over its reference on each query, percent [Q]; NaN where unknown."""
    mine = np.array(sides[lane].precisions[protocol], np.float64)
    reference = sides[lane].reference
    if reference is None:
        return np.full(mine.shape, np.nan)
    return mine - np.array(sides[reference].precisions[protocol], np.float64)


def _by_protocol(rankings: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    spare = rankings[ALL] if ALL in rankings else next(iter(rankings.values()))
    return {protocol: rankings.get(protocol, spare) for protocol in PROTOCOLS}


def _precisions(
    run: Evaluated, method: str, truth: list[dict] | None
) -> dict[str, list[float | None]]:
    """Of `metrics.json`, else computed, else unknown."""
    stored = run.metrics.get("average_precisions", {}).get(method, {})
    queries = len(run.names[0])
    result = {}
    for protocol, ranking in _by_protocol(run.rankings[method]).items():
        values = stored.get(protocol)
        if values is None and truth is not None:
            fractions = revisited.evaluate(ranking.T, truth, ())[protocol]["aps"]
            values = [None if value is None else 100 * value for value in fractions]
        if values is None or len(values) != queries:
            values = [None] * queries
        result[protocol] = values
    return result
