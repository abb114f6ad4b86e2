"""How sure a global average precision is: an interval by drawing queries again and again."""

from collections.abc import Sequence

import numpy as np

from delg_jax.evaluation import gldv2
from delg_jax.evaluation.bootstrap import Comparison, Interval


def interval(
    predictions: gldv2.Recognised,
    solution: gldv2.Landmarks,
    ignore_non_gt: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `gldv2.global_average_precision`, official ties.

    All queries of the solution are drawn with replacement, those without a landmark too; a query
    drawn twice is in the ranking twice.

    Args:
      predictions: see `gldv2.global_average_precision`.
      solution: see there.
      ignore_non_gt: see there.
      level: share of the intervals that should hold the true value.
      resamples: number of times that as many queries are drawn as there are.
      seed: of the random numbers; the same seed gives the same interval.

    Returns:
      The global average precision, a fraction, and its interval; NaN if no query shows a landmark.

    Raises:
      ValueError: for a query that is not in the solution, or a score that is NaN.
    """
    value = gldv2.global_average_precision(predictions, solution, ignore_non_gt)
    side = _Side(predictions, solution, ignore_non_gt)
    (drawn,) = _drawn([side], solution, resamples, seed)
    return Interval(value, *_bounds(drawn, level))


def paired(
    first: gldv2.Recognised,
    second: gldv2.Recognised,
    solution: gldv2.Landmarks,
    ignore_non_gt: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares what two methods say of the same queries.

    Both are measured on the same draws. The p-value is twice the share of draws in which the
    difference is 0 or of the other sign, the one seen counted as another; an exchange of the two
    predictions of a query, as of `bootstrap.paired`, would mix scores of unequal scales.

    Args:
      first: predictions of one method, see `gldv2.global_average_precision`.
      second: of the other.
      solution: see there.
      ignore_non_gt: see there.
      level: see `interval`.
      resamples: see `interval`.
      seed: see `interval`.

    Returns:
      The comparison, first minus second, in fractions; NaN if no query shows a landmark.

    Raises:
      ValueError: as `interval`.
    """
    one, other = (
        gldv2.global_average_precision(said, solution, ignore_non_gt) for said in (first, second)
    )
    sides = [_Side(said, solution, ignore_non_gt) for said in (first, second)]
    differences = np.subtract(*_drawn(sides, solution, resamples, seed))
    difference = Interval(one - other, *_bounds(differences, level))
    if not len(differences):
        return Comparison(difference, float("nan"), len(solution))
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * (int(rarer) + 1) / (len(differences) + 1))
    return Comparison(difference, p_value, len(solution))


class _Side:
    """The predictions of a method, the most certain first."""

    def __init__(
        self, predictions: gldv2.Recognised, solution: gldv2.Landmarks, ignore_non_gt: bool
    ) -> None:
        queries, scores, correct = gldv2.in_official_order(predictions, solution, ignore_non_gt)
        order = np.argsort(-scores, kind="stable")
        place = {query: position for position, query in enumerate(solution)}
        self._owners = np.array([place[query] for query in queries], np.int64)[order]
        self._correct = correct[order]

    def summed(self, times: np.ndarray) -> float:
        """Precisions at all correct predictions, if each query is there so many times."""
        return _summed(times[self._owners], self._correct)


def _drawn(
    sides: Sequence[_Side], solution: gldv2.Landmarks, resamples: int, seed: int
) -> np.ndarray:
    """Global average precisions [sides, <= resamples] of queries drawn with replacement."""
    shown = np.array([bool(landmarks) for landmarks in solution.values()], bool)
    rng, count, drawn = np.random.default_rng(seed), len(solution), []
    for _ in range(resamples if shown.any() else 0):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        if times[shown].any():
            drawn.append([side.summed(times) / times[shown].sum() for side in sides])
    return np.array(drawn, np.float64).reshape(-1, len(sides)).T


def _bounds(drawn: np.ndarray, level: float) -> tuple[float, float]:
    if not len(drawn):
        return float("nan"), float("nan")
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def _summed(times: np.ndarray, correct: np.ndarray) -> float:
    """Precisions at all correct predictions, summed, where each is repeated so many times."""
    ranks, hits = np.cumsum(times), np.cumsum(times * correct)
    times, ranks, hits = (side[correct] for side in (times, ranks, hits))
    total = 0.0
    for back in range(times.max(initial=0)):
        repeated = times > back
        total += ((hits[repeated] - back) / (ranks[repeated] - back)).sum()
    return float(total)
