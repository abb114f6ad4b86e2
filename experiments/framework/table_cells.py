"""The cells of a table, read from the metrics of its evaluations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax.evaluation import significance
from experiments.framework.experiment import Choice, Column, Experiment, Row, Setting
from experiments.framework.plan import Options, data_sets
from experiments.framework.runs import Results


@dataclasses.dataclass(frozen=True)
class Cell:
    """Our number for a row and a column.

    Attributes:
      value: mean over the queries of all seeds, or over seeds; None if not measured.
      low: lower bound of its 95 % interval; None if there is none.
      high: upper bound.
      per_query: float [seeds * Q], NaN where a query has no value; empty if the value is not a
        mean over queries.
      chosen: name of the setting, if the row has several.
      source: setting and method.
      gain: comparison of a value that is not a mean over queries with the search of the same
        evaluation, as in its metrics; empty if there is none.
      queries: number of queries in that comparison.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    per_query: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    chosen: str = ""
    source: tuple[str, str] = ("", "")
    gain: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    queries: int = 0


# By name of the row and title of the column
Cells = dict[tuple[str, str], Cell]


def read(experiment: Experiment, results: Results, options: Options) -> Cells:
    """Reads all cells.

    Args:
      experiment: that was run.
      results: of its evaluations; cells of failed ones stay empty.
      options: of the command line.

    Returns:
      A cell for each row and column that exist at the size.
    """
    names = data_sets(experiment, options)
    columns = [c for c in experiment.columns_at(options.size) if c.data in names]
    reader = _Reader(results, options.seeds, experiment.choice)
    cells = {}
    for row in experiment.rows_at(options.size):
        for column in columns:
            setting = reader.choose(row, [c for c in columns if c.data == column.data])
            cell = reader.cell(setting, row, column)
            chosen = setting.name if len(row.settings) > 1 else ""
            cells[row.name, column.title] = dataclasses.replace(cell, chosen=chosen)
    return cells


def compare(better: Cell, worse: Cell) -> significance.Comparison | None:
    """Compares two rows query by query, or as their evaluation did; None if neither is possible."""
    gain = better.gain
    if gain and worse.source == (better.source[0], gain["over"]):
        names = ("difference", "low", "high", "p_value")
        *bounds, p_value = np.array([gain[name] for name in names], np.float64).tolist()
        return significance.Comparison(significance.Interval(*bounds), p_value, better.queries)
    if not len(better.per_query) or len(better.per_query) != len(worse.per_query):
        return None
    return significance.paired(better.per_query, worse.per_query)


class _Reader:
    def __init__(self, results: Results, seeds: Sequence[int], choice: Choice | None) -> None:
        self._results, self._seeds, self._choice = results, seeds, choice

    def choose(self, row: Row, columns: Sequence[Column]) -> Setting:
        """Returns the setting of a row that is best on the queries used to choose."""
        if len(row.settings) == 1 or self._choice is None:
            return row.settings[0]
        decisive = [column for column in columns if column.title in self._choice.columns]

        def total(setting: Setting) -> float:
            found = [self._per_query(setting, row, column, False) for column in decisive]
            means = [np.nanmean(values) for values in found if not np.isnan(values).all()]
            return sum(means) if len(means) == len(found) else -np.inf

        return max(row.settings, key=total)

    def cell(self, setting: Setting, row: Row, column: Column) -> Cell:
        """Returns the cell of a setting, on the queries used to measure."""
        values = self._per_query(setting, row, column, True)
        if len(values) and not np.isnan(values).all():
            return Cell(*significance.interval(values), values)
        metrics = self._metrics(setting, column)
        found = [_find(one, column.value, row.method) for one in metrics]
        known = [value for value in found if value is not None]
        if not known or self._choice is not None:
            return Cell()
        cell = Cell(float(np.mean(known)), source=(setting.name, row.method))
        if not column.interval or len(metrics) > 1:
            return cell
        bounds = _find(metrics[0], column.interval, row.method) or (None, None)
        low, high = (bounds["low"], bounds["high"]) if isinstance(bounds, Mapping) else bounds
        gain = _find(metrics[0], column.comparison, row.method) or {}
        queries = metrics[0].get("queries", 0)
        return dataclasses.replace(cell, low=low, high=high, gain=gain, queries=queries)

    def _per_query(self, setting: Setting, row: Row, column: Column, measured: bool) -> np.ndarray:
        """Values of the queries of all seeds; with a choice, of those to measure or choose by."""
        found = [
            np.asarray(_find(one, column.per_query, row.method) or [], np.float64)
            for one in self._metrics(setting, column)
        ]
        if self._choice is not None:
            halves = [
                np.arange(len(one)) // self._choice.group % 2 == int(measured) for one in found
            ]
            found = [one[half] for one, half in zip(found, halves, strict=True)]
        return np.concatenate(found) if found else np.zeros(0)

    def _metrics(self, setting: Setting, column: Column) -> list[Mapping[str, Any]]:
        found = [self._results[setting.name, column.data, seed] for seed in self._seeds]
        return [result.metrics["evaluate"] for result in found if "evaluate" in result.metrics]


def _find(metrics: Any, path: str, method: str) -> Any:
    """Returns the value at a path with slashes; None if there is none or the path is empty."""
    if not path:
        return None
    for part in path.split("/"):
        name = part.replace("{method}", method)
        if not isinstance(metrics, Mapping) or name not in metrics:
            return None
        metrics = metrics[name]
    return metrics
