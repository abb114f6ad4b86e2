"""The order of queries in a report."""

from collections.abc import Sequence

import numpy as np

from delg_jax.errors import require_choice
from delg_jax.reports.method_results import MethodResult, changes, mean_precisions

CHOICES = ("changed", "worst", "best")


def choose(
    results: Sequence[MethodResult], by: str, count: int, protocol: str = "medium"
) -> list[int]:
    """Sorts queries by interest; queries without positives come last.

    Args:
      results: of the methods of one group.
      by: `changed`, by the largest change of average precision, up or down, of any method over
        its first stage or over the same method of the first run; `worst` or `best`, by the mean
        average precision over the methods.
      count: number of queries; 0 for all.
      protocol: of the precisions.

    Returns:
      Indices of queries; ties in ascending order.

    Raises:
      UserError: for an unknown choice.
    """
    require_choice("--choose", by, CHOICES)
    if by == "changed":
        moved = np.array([changes(results, number, protocol) for number in range(len(results))])
        value = -np.where(np.isnan(moved), -1.0, np.abs(moved)).max(axis=0)
    else:
        mean = mean_precisions(results, protocol)
        value = np.where(np.isnan(mean), np.inf, mean if by == "worst" else -mean)
    order = np.argsort(value, kind="stable")
    return order[: count or len(order)].tolist()
