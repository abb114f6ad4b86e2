"""Verification of image pairs: average precision of "both show the same landmark".

DELG, section 4.1 and Table 1: 200 thousand pairs of a test and a train image of Google Landmarks,
one thousand of them of the same landmark, ranked by their number of inliers.
"""

import numpy as np

# together: equal scores are one threshold; order: one after the other, lower index first
TIES = ("together", "order")


def average_precision(
    scores: np.ndarray,
    labels: np.ndarray,
    ties: str = "together",
    positives: int | None = None,
) -> float:
    """Mean, over the positives, of the precision of the ranking down to each of them.

    Most pairs have no inlier at all, so that ties decide. Taken together, the result does not
    depend on the order of the pairs: every positive of a tie gets the precision at the tie's end.

    Args:
      scores: float or int [P], larger is better.
      labels: bool [P], whether a pair is a positive.
      ties: one of `TIES`.
      positives: number of positives there are, if some have no score; None = those of `labels`.

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
