"""Google Landmarks v2: metrics of retrieval and recognition, and recognition by retrieval.

Weyand, Araujo, Cao, Sim, "Google Landmarks Dataset v2", CVPR 2020; the numbers are
those of the official scoring code. A solution maps the id of each query to its answers, a
prediction the id of a query to what was found; a query without a prediction counts as wrong.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from delg_jax.rerank.spatial_verification import combined_score

# together: equal scores are one threshold; order: one after the other, lower index first
TIES = ("together", "order")


def average_precision(
    scores: np.ndarray,
    labels: np.ndarray,
    ties: str = "together",
    positives: int | None = None,
) -> float:
    """Mean, over the positives, of the precision of the ranking down to each of them.

    Many scores are equal, as most pairs have no inlier. With ties taken together, every positive of
    a tie gets the precision at its end, so that the order of the pairs does not matter.

    Args:
      scores: float or int [P], larger is better.
      labels: bool [P], whether a pair is a positive.
      ties: one of `TIES`.
      positives: number of positives, if some have no score; None = those of `labels`.

    Returns:
      A fraction in [0, 1]; NaN if there are no positives.

    Raises:
      ValueError: for arrays of different shapes, a score that is NaN, an unknown rule of ties, or
        fewer `positives` than `labels` has.
    """
    scores, labels = np.asarray(scores, np.float64), np.asarray(labels, bool)
    if scores.ndim != 1 or scores.shape != labels.shape:
        rule = f"must be one list as long as `labels` (shape {labels.shape})"
        raise ValueError(f"`scores` (shape {scores.shape}) {rule}")
    if np.isnan(scores).any():
        raise ValueError(f"`scores` (nan at {np.isnan(scores).argmax()}) must be numbers")
    if ties not in TIES:
        raise ValueError(f"`ties` (={ties!r}) must be one of {', '.join(TIES)}")
    found = int(labels.sum())
    positives = found if positives is None else positives
    if positives < found:
        raise ValueError(f"`positives` (={positives}) must be at least the {found} of `labels`")
    if not positives:
        return float("nan")
    order = np.argsort(-scores, kind="stable")
    hits = labels[order]
    precisions = np.cumsum(hits) / np.arange(1, len(hits) + 1)
    if ties == "together":
        descending = -scores[order]
        precisions = precisions[np.searchsorted(descending, descending, side="right") - 1]
    return float(precisions[hits].sum() / positives)


RankedIds = Mapping[str, Sequence[str]]
Recognised = Mapping[str, Mapping[str, float]]
Landmarks = Mapping[str, Sequence[int]]


def global_average_precision(
    predictions: Recognised,
    solution: Landmarks,
    ignore_non_gt: bool = False,
    ties: str = "order",
) -> float:
    """Micro average precision of recognition: one ranking of all queries' predictions.

    Args:
      predictions: `class` (int) and `score` (float, larger is more certain) of each query.
      solution: landmarks of each query; empty where none is shown.
      ignore_non_gt: leaves out the predictions for queries that show no landmark.
      ties: how equal scores are ranked. `order` is the official rule: by the id of the query, then
        by class, ascending. `together` does not depend on names, see `average_precision`.

    Returns:
      A fraction in [0, 1]; NaN if no query shows a landmark.

    Raises:
      ValueError: for a query that is not in the solution, or a score that is NaN.
    """
    _, scores, correct = in_official_order(predictions, solution, ignore_non_gt)
    return average_precision(scores, correct, ties, sum(map(bool, solution.values())))


def in_official_order(
    predictions: Recognised, solution: Landmarks, ignore_non_gt: bool = False
) -> tuple[list[str], np.ndarray, np.ndarray]:
    """Predictions by the id of the query, then class: the order of those with equal scores.

    Args:
      predictions: see `global_average_precision`.
      solution: see there.
      ignore_non_gt: see there.

    Returns:
      Queries of the P predictions, their scores float64 [P], and whether they are correct, bool.

    Raises:
      ValueError: for a query that is not in the solution.
    """
    _require_known(predictions, solution)
    ranked = sorted((query, one["class"], one["score"]) for query, one in predictions.items())
    if ignore_non_gt:
        ranked = [row for row in ranked if solution[row[0]]]
    scores = np.array([score for _, _, score in ranked], np.float64)
    correct = np.array([name in solution[query] for query, name, _ in ranked], bool)
    return [query for query, _, _ in ranked], scores, correct


def top1_accuracy(predictions: Recognised, solution: Landmarks) -> float:
    """Share of the queries with a landmark whose prediction is correct, whatever its score.

    Args:
      predictions: `class` (int) of each query.
      solution: landmarks of each query; those without any are left out.

    Returns:
      A fraction in [0, 1]; NaN if no query shows a landmark.

    Raises:
      ValueError: for a query that is not in the solution.
    """
    _require_known(predictions, solution)
    correct = [
        query in predictions and predictions[query]["class"] in landmarks
        for query, landmarks in solution.items()
        if landmarks
    ]
    return _mean(np.array(correct))


def average_precisions(predictions: RankedIds, solution: RankedIds, k: int = 100) -> np.ndarray:
    """Average precision of each query over its first k images.

    Args:
      predictions: ids of the images that were found for each query, best first. A repeated
        image takes a rank but does not count again.
      solution: ids of the images to find for each query; one that is listed twice counts once.
      k: number of images that count.

    Returns:
      Fractions float64 [Q] in the order of `solution`; NaN for queries with nothing to find.

    Raises:
      ValueError: for a query that is not in the solution, or k below 1.
    """
    hits = _hits(predictions, solution, k)
    wanted = np.array([min(len(set(images)), k) for images in solution.values()], np.float64)
    summed = (hits * _precisions(hits)).sum(axis=1)
    return np.where(wanted > 0, summed / np.maximum(wanted, 1), np.nan)


def mean_average_precision(predictions: RankedIds, solution: RankedIds, k: int = 100) -> float:
    """Mean of `average_precisions` over the queries with something to find; NaN without any."""
    values = average_precisions(predictions, solution, k)
    return _mean(values[~np.isnan(values)])


def mean_precisions(predictions: RankedIds, solution: RankedIds, k: int = 100) -> np.ndarray:
    """Precision of the first 1, 2, ..., k images, averaged over the queries.

    Args:
      predictions: see `average_precisions`; ranks after the last image count as misses.
      solution: see there; queries with nothing to find are left out.
      k: number of ranks.

    Returns:
      Fractions float64 [k]; NaN if no query has anything to find.

    Raises:
      ValueError: for a query that is not in the solution, or k below 1.
    """
    hits = _scored_hits(predictions, solution, k)
    return _precisions(hits).mean(axis=0) if len(hits) else np.full(k, np.nan)


def mean_median_position(
    predictions: RankedIds, solution: RankedIds, k: int = 100
) -> tuple[float, float]:
    """Rank of the first correct image, from 1; k + 1 for a query without one among the first k.

    Args:
      predictions: see `average_precisions`.
      solution: see there; queries with nothing to find are left out.
      k: number of images that count.

    Returns:
      Mean and median over the queries; NaN if no query has anything to find.

    Raises:
      ValueError: for a query that is not in the solution, or k below 1.
    """
    hits = _scored_hits(predictions, solution, k)
    if not len(hits):
        return float("nan"), float("nan")
    positions = np.where(hits.any(axis=1), hits.argmax(axis=1) + 1, k + 1)
    return float(positions.mean()), float(np.median(positions))


def combine(
    labels: np.ndarray, similarities: np.ndarray, inliers: np.ndarray | None, top: int
) -> tuple[np.ndarray, np.ndarray]:
    """Recognition by retrieval: the class with the largest sum of scores among the best images.

    A training image scores as `combined_score` says; the score of a class is the sum over its
    images (DELG, section 4.1, "Feature extraction and matching"; official code). Of equal images
    the one given first ranks first, of equal classes the one whose best image ranks first.

    Args:
      labels: int [Q, M], class of each training image that was retrieved; -1 where there is none.
      similarities: float [Q, M], global similarity, larger is better.
      inliers: int [Q, M]; None = by global similarity alone.
      top: number of images, best first by their score, that are summed. The paper leaves it open.

    Returns:
      Classes int64 [Q] and their scores float64 [Q]; -1 and NaN where nothing was retrieved.

    Raises:
      ValueError: for arrays of different shapes, or `top` below 1.
    """
    labels, scores = np.asarray(labels, np.int64), np.asarray(similarities, np.float64)
    shapes = [labels.shape, scores.shape, labels.shape if inliers is None else np.shape(inliers)]
    if labels.ndim != 2 or len(set(shapes)) > 1:
        raise ValueError(f"`labels`, ... (shapes {shapes}) must have one shape [Q, M]")
    if top < 1:
        raise ValueError(f"`top` (={top}) must be at least 1")
    if inliers is not None:
        scores = combined_score(inliers, scores)
    # One column of absent images makes M at least 1
    labels = np.pad(labels, ((0, 0), (0, 1)), constant_values=-1)
    scores = np.pad(scores, ((0, 0), (0, 1)))
    order = np.argsort(np.where(labels < 0, np.inf, -scores), axis=1, kind="stable")[:, :top]
    labels, scores = (np.take_along_axis(side, order, axis=1) for side in (labels, scores))
    # A column at a time: no array of images by images is made
    same = (labels == column[:, None] for column in labels.T)
    sums = np.stack([np.where(equal, scores, 0.0).sum(axis=1) for equal in same], axis=1)
    best = np.where(labels < 0, -np.inf, sums).argmax(axis=1)
    rows = np.arange(len(labels))
    classes = labels[rows, best]
    return classes, np.where(classes < 0, np.nan, sums[rows, best])


def _hits(predictions: RankedIds, solution: RankedIds, k: int) -> np.ndarray:
    """Whether each of the first k images is correct and new: bool [Q, k], Q as the solution."""
    _require_known(predictions, solution)
    if k < 1:
        raise ValueError(f"`k` (={k}) must be at least 1")
    hits = np.zeros((len(solution), k), bool)
    for row, (query, images) in enumerate(solution.items()):
        left = set(images)
        for rank, image in enumerate(predictions.get(query, ())[:k]):
            hits[row, rank] = image in left
            left.discard(image)
    return hits


def _scored_hits(predictions: RankedIds, solution: RankedIds, k: int) -> np.ndarray:
    """`_hits` of the queries with something to find."""
    return _hits(predictions, solution, k)[[bool(images) for images in solution.values()]]


def _precisions(hits: np.ndarray) -> np.ndarray:
    """Precision of the first 1, 2, ..., k images: float64 [Q, k]."""
    return np.cumsum(hits, axis=1) / np.arange(1, hits.shape[1] + 1)[None, :]


def _mean(values: np.ndarray) -> float:
    return float(values.mean()) if len(values) else float("nan")


def _require_known(predictions: Mapping, solution: Mapping) -> None:
    unknown = next((query for query in predictions if query not in solution), None)
    if unknown is not None:
        raise ValueError(f"`predictions` (with {unknown!r}) must be for queries of `solution`")
