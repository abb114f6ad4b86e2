"""The timing harness of every benchmark, and the file of every result, with where it comes from."""

import dataclasses
import math
import pathlib
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np

from delg_jax import workdir
from delg_jax.benchmarks import environment

_FITTED_POINTS = 3  # the largest, to which an exponent is fitted


@dataclasses.dataclass(frozen=True)
class Timing:
    """How long a call took.

    Attributes:
      first_call: seconds of the first call, which compiles and is not counted.
      seconds: of each timed call.
    """

    first_call: float
    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Median seconds of the timed calls."""
        return statistics.median(self.seconds)

    @property
    def fastest(self) -> float:
        """Seconds of the fastest timed call, which other programs disturbed least."""
        return min(self.seconds)


def time_in_turn(
    calls: Sequence[Callable[[], object]],
    repeats: int,
    warm_ups: Sequence[Callable[[], object]] | None = None,
    enough: float = math.inf,
) -> list[Timing]:
    """Times calls in turn, so that a change in the machine's load affects all of them.

    Args:
      calls: each returns when its work is done, not when it has only been dispatched.
      repeats: timed rounds, at least 1.
      warm_ups: called once before the rounds, one for each call; None to use `calls`.
      enough: seconds of timed calls in all after which no further round starts.

    Returns:
      A timing for each call.
    """
    first_calls = [_seconds(call) for call in warm_ups or calls]
    rounds: list[list[float]] = [[] for _ in calls]
    for _ in range(repeats):
        for call, seconds in zip(calls, rounds, strict=True):
            seconds.append(_seconds(call))
        if sum(map(sum, rounds)) >= enough:
            break
    return [Timing(*timed) for timed in zip(first_calls, map(tuple, rounds), strict=True)]


def growth_exponent(points: Sequence[tuple[int, float]]) -> float:
    """Exponent e of time ~ size^e, fitted to the (size, time) pairs of the largest sizes."""
    sizes, times = np.log(np.array(points[-_FITTED_POINTS:], np.float64)).T
    return float(np.polyfit(sizes, times, 1)[0])


def write_result(
    folder: str | pathlib.Path,
    name: str,
    content: Mapping[str, Any],
    text: str = "",
    chart: str | None = None,
    config: ml_collections.ConfigDict | Mapping[str, Any] | None = None,
) -> None:
    """Writes a result, of a benchmark or of an experiment.

    Args:
      folder: of all results.
      name: of the result, unique in the folder.
      content: the numbers, written to NAME.json together with the `environment`.
      text: the table in Markdown, written to NAME.md if there is any.
      chart: SVG, written to NAME.svg.
      config: that decides the numbers, see `environment.describe`.
    """
    path = pathlib.Path(folder) / name
    described = {**content, "environment": environment.describe(config)}
    workdir.write_json(pathlib.Path(f"{path}.json"), described)
    if text:
        workdir.write_text(pathlib.Path(f"{path}.md"), text)
    if chart is not None:
        workdir.write_text(pathlib.Path(f"{path}.svg"), chart)


def _seconds(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start
