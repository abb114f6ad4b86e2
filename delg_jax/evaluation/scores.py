"""What a method's rankings are worth by the protocols of Revisited Oxford and Paris."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.evaluation import revisited, uncertainty

Metrics = dict[str, dict[str, float | None]]


class Scores(NamedTuple):
    """All numbers of one method, in percent where they are shares; None where nothing counts.

    Attributes:
      metrics: values by protocol and metric, the one that intervals are of first.
      average_precisions: of each query, by protocol; empty where there are none.
      intervals: 95 % interval of the first metric by protocol, lower and upper bound.
    """

    metrics: Metrics
    average_precisions: dict[str, list[float | None]]
    intervals: dict[str, list[float | None]]


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
    source = {name: name if name in rankings else "all" for name in revisited.PROTOCOLS}
    scored = {
        name: revisited.evaluate(rankings[name].T, ground_truth, kappas)
        for name in set(source.values())
    }
    metrics, precisions = {}, {}
    for protocol in revisited.PROTOCOLS:
        values = dict(scored[source[protocol]][protocol])
        precisions[protocol] = [None if ap is None else 100.0 * ap for ap in values.pop("aps")]
        metrics[protocol] = {name: percent(value) for name, value in values.items()}
    return Scores(metrics, precisions, uncertainty.intervals(precisions))


def percent(share: float) -> float | None:
    """A share in percent, None for NaN."""
    return uncertainty.number_or_none(100.0 * share)
