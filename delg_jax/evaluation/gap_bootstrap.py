"""How sure a global average precision is: an interval by drawing queries again and again."""

import numpy as np

from delg_jax.evaluation import gldv2
from delg_jax.evaluation.bootstrap import Interval


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
    queries, scores, correct = gldv2.in_official_order(predictions, solution, ignore_non_gt)
    order = np.argsort(-scores, kind="stable")
    place = {query: position for position, query in enumerate(solution)}
    owners = np.array([place[query] for query in queries], np.int64)[order]
    shown = np.array([bool(landmarks) for landmarks in solution.values()], bool)
    rng, count, drawn = np.random.default_rng(seed), len(solution), []
    for _ in range(resamples if shown.any() else 0):
        times = np.bincount(rng.integers(0, count, count), minlength=count)
        if times[shown].any():
            drawn.append(_summed(times[owners], correct[order]) / times[shown].sum())
    if not drawn:
        return Interval(value, float("nan"), float("nan"))
    low, high = np.quantile(drawn, [(1 - level) / 2, (1 + level) / 2])
    return Interval(value, float(low), float(high))


def _summed(times: np.ndarray, correct: np.ndarray) -> float:
    """Precisions at all correct predictions, summed, where each is repeated so many times."""
    ranks, hits = np.cumsum(times), np.cumsum(times * correct)
    times, ranks, hits = (side[correct] for side in (times, ranks, hits))
    total = 0.0
    for back in range(times.max(initial=0)):
        repeated = times > back
        total += ((hits[repeated] - back) / (ranks[repeated] - back)).sum()
    return float(total)
