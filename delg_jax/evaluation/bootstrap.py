"""How sure a mean over queries is: bootstrap intervals, and a test of two methods.

Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 to 15. A query without
positives has no value (NaN, or None) and takes no part.
"""

import statistics
from collections.abc import Iterator
from typing import NamedTuple

import numpy as np

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
