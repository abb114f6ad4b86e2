"""How sure the mean average precision of each method is, and its gain over its first stage."""

import math
from collections.abc import Collection, Mapping, Sequence

import numpy as np

from delg_jax.evaluation import bootstrap

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
        _, low, high = bootstrap.interval(_numbers(listed))
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


def gain(over: str, found: bootstrap.Comparison) -> Gain:
    """A comparison with a search, as JSON has it; see `comparisons`."""
    difference, low, high = map(number_or_none, found.difference)
    p_value = number_or_none(found.p_value)
    return {"over": over, "difference": difference, "low": low, "high": high, "p_value": p_value}


def number_or_none(value: float) -> float | None:
    """The value as JSON has it: None for NaN."""
    return None if math.isnan(value) else float(value)


def _compared(over: str, mine: Sequence[float | None], its: Sequence[float | None]) -> Gain:
    return gain(over, bootstrap.paired(_numbers(mine), _numbers(its)))


def _numbers(values: Sequence[float | None]) -> np.ndarray:
    return np.asarray(values, np.float64)
