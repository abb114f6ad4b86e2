"""How sure a mean over queries is: bootstrap intervals, and a test of two methods.

Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 to 15. A query without
positives has no value (NaN, or None) and takes no part.
"""

import math
import statistics
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.evaluation import gldv2

METHODS = ("percentile", "bca")
_BLOCK = 2**20  # values drawn at a time
_ROUNDING = 1e-12  # share of the sum of absolute differences within which two sums are equal
_NORMAL = statistics.NormalDist()


class Interval(NamedTuple):
    """A mean over queries.

    Attributes:
      mean: of the values; NaN if there are none, as are the bounds.
      low: lower bound.
      high: upper bound.
    """

    mean: float
    low: float
    high: float


class Comparison(NamedTuple):
    """Two methods on the same queries.

    Attributes:
      difference: mean of the first minus the second, with its interval.
      p_value: two-sided, of no difference; NaN if there are no queries.
      queries: number of queries that have a value in both.
    """

    difference: Interval
    p_value: float
    queries: int


def interval(
    values: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    method: str = "percentile",
) -> Interval:
    """Bootstrap interval of the mean over queries, which are drawn with replacement.

    Args:
      values: float [Q], one per query, for example average precisions; NaN and None are left out.
      level: share of the intervals that should hold the true mean.
      resamples: number of times that Q queries are drawn.
      seed: of the random numbers; the same seed gives the same interval.
      method: `percentile`, or `bca`, which corrects it for bias and skewness.

    Returns:
      The mean and its interval, in the unit of the values.

    Raises:
      ValueError: for values that are no list, an unknown method, a level outside (0, 1), or no
        resamples.
    """
    _require(level, resamples)
    if method not in METHODS:
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(METHODS)}")
    values = _list("values", values)
    values = values[~np.isnan(values)]
    if not len(values):
        return Interval(*[float("nan")] * 3)
    draws = _draws(np.random.default_rng(seed), len(values), resamples, len(values))
    means = np.concatenate([values[drawn].mean(axis=1) for drawn in draws])
    tails = [(1 - level) / 2, (1 + level) / 2]
    if method == "bca":
        tails = _corrected(tails, values, means)
    low, high = np.quantile(means, tails)
    return Interval(float(values.mean()), float(low), float(high))


def paired(
    first: np.ndarray,
    second: np.ndarray,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
    method: str = "percentile",
) -> Comparison:
    """Compares two methods query by query.

    The p-value is of the permutation test that exchanges the two values of a query: the share of
    exchanges whose mean difference is at least as large as the one seen. All 2^Q are tried if
    they are no more than `resamples`; else so many are drawn, and the one seen counts as another
    (Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010).

    Args:
      first: float [Q], values of one method.
      second: float [Q], of the other on the same queries. A query that is NaN or None in either
        is left out of both.
      level: see `interval`, which the interval of the difference comes from.
      resamples: of the interval, and exchanges of the test.
      seed: see `interval`.
      method: see `interval`.

    Returns:
      The comparison, first minus second.

    Raises:
      ValueError: as `interval`, or for lists of different lengths.
    """
    first, second = _list("first", first), _list("second", second)
    if len(first) != len(second):
        rule = f"must have one value for each of the {len(second)} of `second`"
        raise ValueError(f"`first` (of {len(first)} values) {rule}")
    differences = first - second
    differences = differences[~np.isnan(differences)]
    difference = interval(differences, level, resamples, seed, method)
    return Comparison(difference, _p_value(differences, resamples, seed), len(differences))


def _p_value(differences: np.ndarray, resamples: int, seed: int) -> float:
    count = len(differences)
    if not count:
        return float("nan")
    every = count < 63 and 2**count <= resamples
    draws = (
        _all_exchanges(count) if every else _draws(np.random.default_rng(seed), 2, resamples, count)
    )
    seen = abs(differences.sum()) - _ROUNDING * np.abs(differences).sum()
    reached = sum(int((np.abs((1 - 2 * drawn) @ differences) >= seen).sum()) for drawn in draws)
    return reached / 2**count if every else (reached + 1) / (resamples + 1)


def _draws(rng: np.random.Generator, below: int, rows: int, columns: int) -> Iterator[np.ndarray]:
    """Random int64 [<= rows, columns] in [0, below), `rows` rows in all, a block at a time."""
    size = max(1, _BLOCK // columns)
    for start in range(0, rows, size):
        yield rng.integers(0, below, (min(size, rows - start), columns))


def _all_exchanges(count: int) -> Iterator[np.ndarray]:
    """All rows of `count` zeros and ones, a block at a time."""
    size = max(1, _BLOCK // count)
    for start in range(0, 2**count, size):
        codes = np.arange(start, min(start + size, 2**count))
        yield (codes[:, None] >> np.arange(count)[None, :]) & 1


def _corrected(tails: list[float], values: np.ndarray, means: np.ndarray) -> list[float]:
    """Shares of the bootstrap means below the bounds of BCa (Efron and Tibshirani, eq. 14.10)."""
    mean = values.mean()
    centred = values - mean
    spread = (centred**2).sum()
    if spread <= np.finfo(np.float64).eps * (values**2).sum():
        return tails  # all values are equal
    # The jackknife means of a mean lie opposite to the values left out
    acceleration = (centred**3).sum() / (6 * spread**1.5)
    below = ((means < mean).mean() + (means <= mean).mean()) / 2
    least = 0.5 / len(means)
    bias = _NORMAL.inv_cdf(min(max(below, least), 1 - least))
    shifted = [bias + _NORMAL.inv_cdf(tail) for tail in tails]
    return [_NORMAL.cdf(bias + z / (1 - acceleration * z)) for z in shifted]


def _list(name: str, values: np.ndarray) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"`{name}` (shape {values.shape}) must be one list")
    return values


def _require(level: float, resamples: int) -> None:
    if not 0 < level < 1:
        raise ValueError(f"`level` (={level}) must lie between 0 and 1")
    if resamples < 1:
        raise ValueError(f"`resamples` (={resamples}) must be at least 1")


def gap_interval(
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


def gap_paired(
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


AveragePrecisions = Mapping[str, Sequence[float | None]]  # of each query, by protocol
Bounds = list[float | None]
Gain = dict[str, str | float | None]


def intervals(values: AveragePrecisions) -> dict[str, Bounds]:
    """Bootstrap intervals (95 %, over queries) of the means of each protocol.

    Args:
      values: average precisions, in any unit.

    Returns:
      Lower and upper bound by protocol, in the unit of the values; None if no query has a value.
    """
    found = {}
    for protocol, listed in values.items():
        _, low, high = interval(_numbers(listed))
        found[protocol] = [number_or_none(low), number_or_none(high)]
    return found


def comparisons(
    methods: Mapping[str, AveragePrecisions],
) -> dict[str, dict[str, Gain]]:
    """Compares every re-ranking with the search that it starts from, query by query.

    Args:
      methods: average precisions by method; `global+sp` is compared with `global`, `local+mds`
        with `local`. Methods whose search is not among them, or without protocols, are left out.

    Returns:
      By method and protocol `over` (the search), `difference` of the means with its 95 % interval
      `low` and `high`, in the unit of the values, and `p_value` of a two-sided permutation test;
      None if no query has a value.
    """
    found = {}
    for method, by_protocol in methods.items():
        over = first_stage(method, methods)
        if by_protocol and over:
            found[method] = {
                protocol: _compared(over, listed, methods[over][protocol])
                for protocol, listed in by_protocol.items()
            }
    return found


def first_stage(method: str, methods: Collection[str]) -> str:
    """The search that a re-ranking starts from, if it is among the methods; else empty."""
    over = method.split("+")[0]
    return over if over != method and over in methods else ""


def gain(over: str, found: Comparison) -> Gain:
    """A comparison with a search, as JSON has it; see `comparisons`."""
    difference, low, high = map(number_or_none, found.difference)
    p_value = number_or_none(found.p_value)
    return {"over": over, "difference": difference, "low": low, "high": high, "p_value": p_value}


def number_or_none(value: float) -> float | None:
    """The value as JSON has it: None for NaN."""
    return None if math.isnan(value) else float(value)


def _compared(over: str, mine: Sequence[float | None], its: Sequence[float | None]) -> Gain:
    return gain(over, paired(_numbers(mine), _numbers(its)))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.asarray(values, np.float64)
