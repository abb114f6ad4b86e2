"""Statistical significance of a mean over queries: bootstrap intervals, and tests of two methods.

Efron, Tibshirani, "An Introduction to the Bootstrap", 1993, chapters 13 to 15. A query without
positives has no value (NaN, or None) and is left out.

Queries of one landmark share their positives and are not independent. Landmarks are therefore what
is drawn and swapped, each with all of its queries (Field and Welsh, "Bootstrapping clustered data",
2007); `ground_truth.query_landmarks` finds them.
"""

import math
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import NamedTuple

import numpy as np
from scipy import stats

from delg_jax.data.ground_truth import query_landmarks
from delg_jax.evaluation import gldv2

_BLOCK = 2**20  # values drawn at a time
_ROUNDING = 1e-12  # share of the sum of absolute differences within which two sums are equal

Values = np.ndarray | Sequence[float | None]  # one per query
Groups = np.ndarray | Sequence[int] | None  # landmark of each query; None: one landmark each
AveragePrecisions = Mapping[str, Sequence[float | None]]  # of each query, by protocol
Bounds = list[float | None]
Gain = dict[str, str | int | float | None]


class Interval(NamedTuple):
    """A mean over queries.

    Attributes:
      mean: of the values; NaN if there are none.
      low: lower bound; NaN if the values are of fewer than two landmarks.
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
      landmarks: number of landmarks that these queries show.
    """

    difference: Interval
    p_value: float
    queries: int
    landmarks: int


def interval(
    values: Values,
    landmarks: Groups = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of the mean over queries.

    Args:
      values: float [Q], one per query, such as average precisions; NaN and None are left out.
      landmarks: int [Q], the landmark of each query; None if each query shows its own.
      level: confidence level.
      resamples: number of times that as many landmarks as there are, each with its queries, are
        drawn with replacement.
      seed: of the random numbers; the same seed gives the same interval.

    Returns:
      The mean and its interval, in the unit of the values.

    Raises:
      ValueError: if `values` is not one-dimensional, `landmarks` has another length, the level is
        outside (0, 1), or there are fewer than two resamples.
    """
    if not 0 < level < 1:
        raise ValueError(f"`level` (={level}) must lie between 0 and 1")
    if resamples < 2:
        raise ValueError(f"`resamples` (={resamples}) must be at least 2")
    sums, counts = _by_landmark(_vector("values", values), landmarks)
    if not len(sums):
        return Interval(math.nan, math.nan, math.nan)
    mean = float(sums.sum() / counts.sum())
    if len(sums) == 1:  # one landmark says nothing about others
        return Interval(mean, math.nan, math.nan)
    found = stats.bootstrap(
        (sums, counts),
        lambda total, count, axis: total.sum(axis=axis) / count.sum(axis=axis),
        n_resamples=resamples,
        batch=max(1, _BLOCK // len(sums)),
        vectorized=True,
        paired=True,
        confidence_level=level,
        method="percentile",
        rng=np.random.default_rng(seed),
    ).confidence_interval
    return Interval(mean, float(found.low), float(found.high))


def _by_landmark(values: np.ndarray, landmarks: Groups) -> tuple[np.ndarray, np.ndarray]:
    """Sum and number [L] of the known values of each landmark that has one."""
    groups = np.arange(len(values)) if landmarks is None else np.asarray(landmarks)
    if groups.shape != values.shape:
        rule = f"must have one landmark for each of the {len(values)} queries"
        raise ValueError(f"`landmarks` (shape {groups.shape}) {rule}")
    known = ~np.isnan(values)
    _, places = np.unique(groups[known], return_inverse=True)
    sums = np.bincount(places, weights=values[known])
    return sums, np.bincount(places).astype(np.float64)


def paired(
    first: Values,
    second: Values,
    landmarks: Groups = None,
    level: float = 0.95,
    resamples: int = 10_000,
    seed: int = 0,
) -> Comparison:
    """Compares two methods query by query.

    The p-value is that of the permutation test that swaps the two values of all queries of a
    landmark: the share of swaps whose mean difference is at least as large as the observed one. All
    2^L are tried if that is at most `resamples`; otherwise `resamples` are drawn, and the observed
    one counts as one more (Phipson and Smyth, "Permutation P-values Should Never Be Zero", 2010).
    With L landmarks no p-value is below 2 / 2^L.

    Args:
      first: float [Q], values of one method.
      second: float [Q], values of the other on the same queries. A query that is NaN or None in
        either is left out of both.
      landmarks: int [Q], the landmark of each query; None if each query shows its own.
      level: confidence level of the interval of the difference, see `interval`.
      resamples: of the interval, and swaps of the test.
      seed: of the random numbers.

    Returns:
      The comparison, first minus second.

    Raises:
      ValueError: as `interval`, or for arguments of different lengths.
    """
    first, second = _vector("first", first), _vector("second", second)
    if len(first) != len(second):
        rule = f"must have one value for each of the {len(second)} of `second`"
        raise ValueError(f"`first` (of {len(first)} values) {rule}")
    differences = first - second
    sums, counts = _by_landmark(differences, landmarks)
    difference = interval(differences, landmarks, level, resamples, seed)
    return Comparison(difference, _p_value(sums, resamples, seed), int(counts.sum()), len(sums))


def holm(p_values: Sequence[float | None]) -> list[float | None]:
    """p-values adjusted for the number of tests (Holm, 1979).

    If each adjusted value below 0.05 is called significant, the chance that any of these calls is
    wrong is at most 5 %.

    Args:
      p_values: of the tests of one table; NaN and None are not tests and stay as they are.

    Returns:
      The adjusted p-values, at most 1, in the same order.
    """
    numbers = _vector("p_values", p_values)
    tests = np.flatnonzero(~np.isnan(numbers))
    adjusted: list[float | None] = list(p_values)
    largest = 0.0
    for rank, test in enumerate(tests[np.argsort(numbers[tests], kind="stable")]):
        largest = max(largest, min(1.0, (len(tests) - rank) * float(numbers[test])))
        adjusted[test] = largest
    return adjusted


# `scipy.stats.permutation_test` computes the same, but sorts two random numbers for each query of
# each swap: 40 times slower, about 45 minutes for 100,000 queries. It also takes sums that are
# equal but for rounding as different where the observed difference is near 0.
def _p_value(differences: np.ndarray, resamples: int, seed: int) -> float:
    count = len(differences)
    if not count:
        return math.nan
    exact = count < 63 and 2**count <= resamples
    swaps = _all_swaps(count) if exact else _random_swaps(count, resamples, seed)
    least = abs(differences.sum()) - _ROUNDING * np.abs(differences).sum()
    reached = sum(int((np.abs((1 - 2 * block) @ differences) >= least).sum()) for block in swaps)
    return reached / 2**count if exact else (reached + 1) / (resamples + 1)


def _random_swaps(count: int, rows: int, seed: int) -> Iterator[np.ndarray]:
    """Random zeros and ones, int64 [rows, count], a block of rows at a time."""
    rng, size = np.random.default_rng(seed), max(1, _BLOCK // count)
    for start in range(0, rows, size):
        yield rng.integers(0, 2, (min(size, rows - start), count))


def _all_swaps(count: int) -> Iterator[np.ndarray]:
    """All 2^count rows of zeros and ones, a block of rows at a time."""
    size = max(1, _BLOCK // count)
    for start in range(0, 2**count, size):
        codes = np.arange(start, min(start + size, 2**count))
        yield (codes[:, None] >> np.arange(count)[None, :]) & 1


def _vector(name: str, values: Values) -> np.ndarray:
    values = np.asarray(values, np.float64)
    if values.ndim != 1:
        raise ValueError(f"`{name}` (shape {values.shape}) must be one-dimensional")
    return values


def gap_interval(
    predictions: gldv2.Recognised,
    solution: gldv2.Landmarks,
    ignore_non_gt: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Interval:
    """Percentile bootstrap interval of `gldv2.global_average_precision`, official ties.

    The landmarks of the solution are drawn with replacement, each with all of its queries, as are
    the queries without one; a query drawn twice is in the ranking twice.

    Args:
      predictions: see `gldv2.global_average_precision`.
      solution: see there.
      ignore_non_gt: see there.
      level: confidence level.
      resamples: number of times that all landmarks are drawn.
      seed: of the random numbers; the same seed gives the same interval.

    Returns:
      The global average precision, a fraction, and its interval; NaN if no query shows a landmark.

    Raises:
      ValueError: for a query that is not in the solution, or a score that is NaN.
    """
    value = gldv2.global_average_precision(predictions, solution, ignore_non_gt)
    ranking = _ConfidenceRanking(predictions, solution, ignore_non_gt)
    (resampled,) = _resampled_gaps([ranking], solution, resamples, seed)
    return Interval(value, *_percentiles(resampled, level))


def gap_paired(
    first: gldv2.Recognised,
    second: gldv2.Recognised,
    solution: gldv2.Landmarks,
    ignore_non_gt: bool = False,
    level: float = 0.95,
    resamples: int = 1000,
    seed: int = 0,
) -> Comparison:
    """Compares the predictions of two methods for the same queries.

    Both are measured on the same draws. The p-value is twice the share of draws in which the
    difference is 0 or has the other sign, with the observed one as one more draw. Swapping the two
    predictions of a query, as `paired` does, would mix scores of different scales.

    Args:
      first: predictions of one method, see `gldv2.global_average_precision`.
      second: predictions of the other.
      solution: see `gldv2.global_average_precision`.
      ignore_non_gt: see there.
      level: confidence level.
      resamples: number of times that all landmarks are drawn.
      seed: of the random numbers.

    Returns:
      The comparison, first minus second, in fractions; NaN if no query shows a landmark.

    Raises:
      ValueError: as `gap_interval`.
    """
    sides = (first, second)
    values = [gldv2.global_average_precision(side, solution, ignore_non_gt) for side in sides]
    rankings = [_ConfidenceRanking(side, solution, ignore_non_gt) for side in sides]
    differences = np.subtract(*_resampled_gaps(rankings, solution, resamples, seed))
    difference = Interval(values[0] - values[1], *_percentiles(differences, level))
    landmarks = len(set(query_landmarks(list(solution.values())).tolist()))
    if not len(differences):
        return Comparison(difference, math.nan, len(solution), landmarks)
    rarer = min((differences <= 0).sum(), (differences >= 0).sum())
    p_value = min(1.0, 2 * (int(rarer) + 1) / (len(differences) + 1))
    return Comparison(difference, p_value, len(solution), landmarks)


class _ConfidenceRanking:
    """The predictions of a method, the most confident first."""

    def __init__(
        self, predictions: gldv2.Recognised, solution: gldv2.Landmarks, ignore_non_gt: bool
    ) -> None:
        queries, scores, correct = gldv2.in_official_order(predictions, solution, ignore_non_gt)
        order = np.argsort(-scores, kind="stable")
        rows = {query: row for row, query in enumerate(solution)}
        self._queries = np.array([rows[query] for query in queries], np.int64)[order]
        self._correct = correct[order]

    def summed_precisions(self, times: np.ndarray) -> float:
        """Sum of the precisions at all correct predictions.

        Args:
          times: int [Q], how often each query of the solution is in the ranking.
        """
        times = times[self._queries]
        ranks, hits = np.cumsum(times), np.cumsum(times * self._correct)
        times, ranks, hits = (column[self._correct] for column in (times, ranks, hits))
        total = 0.0
        for back in range(times.max(initial=0)):
            repeated = times > back
            total += ((hits[repeated] - back) / (ranks[repeated] - back)).sum()
        return float(total)


# Not `scipy.stats.bootstrap`, whose intervals are NaN if one draw has no value
def _resampled_gaps(
    rankings: Sequence[_ConfidenceRanking], solution: gldv2.Landmarks, resamples: int, seed: int
) -> np.ndarray:
    """Global average precisions [methods, <= resamples] of landmarks drawn with replacement."""
    shown = np.array([bool(landmarks) for landmarks in solution.values()], bool)
    _, places = np.unique(query_landmarks(list(solution.values())), return_inverse=True)
    rng, count = np.random.default_rng(seed), places.max(initial=-1) + 1
    gaps: list[list[float]] = []
    for _ in range(resamples if shown.any() else 0):
        times = np.bincount(rng.integers(0, count, count), minlength=count)[places]
        if positives := times[shown].sum():
            gaps.append([ranking.summed_precisions(times) / positives for ranking in rankings])
    return np.array(gaps, np.float64).reshape(-1, len(rankings)).T


def _percentiles(values: np.ndarray, level: float) -> tuple[float, float]:
    if not len(values):
        return math.nan, math.nan
    low, high = np.quantile(values, [(1 - level) / 2, (1 + level) / 2])
    return float(low), float(high)


def intervals(values: AveragePrecisions, landmarks: Groups = None) -> dict[str, Bounds]:
    """95 % bootstrap intervals over landmarks, of the mean of each protocol.

    Args:
      values: average precisions, in any unit.
      landmarks: int [Q], see `interval`.

    Returns:
      Lower and upper bound by protocol, in the unit of the values; None if there is none.
    """
    found = {name: interval(precisions, landmarks) for name, precisions in values.items()}
    return {
        protocol: [number_or_none(one.low), number_or_none(one.high)]
        for protocol, one in found.items()
    }


def comparisons(
    methods: Mapping[str, AveragePrecisions], landmarks: Groups = None
) -> dict[str, dict[str, Gain]]:
    """Compares every re-ranking with the search that it starts from, query by query.

    Args:
      methods: average precisions by method; `global+sp` is compared with `global`, `local+mds`
        with `local`. Methods whose search is not among them, or without protocols, are left out.
      landmarks: int [Q], see `interval`.

    Returns:
      By method and protocol `over` (the search), `difference` of the means with its 95 % interval
      `low` and `high`, in the unit of the values, `p_value` of a two-sided permutation test, and
      the numbers of `queries` and `landmarks`; None if no query has a value.
    """
    found = {}
    for method, by_protocol in methods.items():
        over = first_stage(method, methods)
        if by_protocol and over:
            found[method] = {
                protocol: gain(over, paired(precisions, methods[over][protocol], landmarks))
                for protocol, precisions in by_protocol.items()
            }
    return found


def first_stage(method: str, methods: Collection[str]) -> str:
    """The search that a re-ranking starts from, if it is among the methods; otherwise empty."""
    over = method.split("+")[0]
    return over if over != method and over in methods else ""


def gain(over: str, found: Comparison) -> Gain:
    """A comparison with a search, as written to JSON; see `comparisons`."""
    difference, low, high = map(number_or_none, found.difference)
    return {
        "over": over,
        "difference": difference,
        "low": low,
        "high": high,
        "p_value": number_or_none(found.p_value),
        "queries": found.queries,
        "landmarks": found.landmarks,
    }


def number_or_none(value: float) -> float | None:
    """The value as written to JSON: None for NaN."""
    return None if math.isnan(value) else float(value)
