"""The cells of a table, read from the metrics of its evaluations."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from delg_jax.errors import UserError
from delg_jax.evaluation import significance
from experiments.framework.experiment import Choice, Column, Experiment, Row, Setting
from experiments.framework.plan import Options, data_sets
from experiments.framework.runs import Results


@dataclasses.dataclass(frozen=True)
class Cell:
    """Our number for a row and a column.

    Attributes:
      value: mean over queries, each averaged over the seeds, or over seeds; None if not measured,
        or if the run of one of the seeds failed.
      low: lower bound of its 95 % interval; None if there is none.
      high: upper bound.
      per_query: float [Q], or [seeds * Q] if each seed has its own queries; NaN where a query has
        no value; empty if the value is not a mean over queries.
      clusters: int, for each of them the cluster that is drawn and swapped as one: its landmark, or
        its seed if several seeds have their own queries.
      chosen: name of the setting, if the row has several.
      source: setting and method.
      gain: comparison of a value that is not a mean over queries with the search of the same
        evaluation, as in its metrics; empty if there is none.
    """

    value: float | None = None
    low: float | None = None
    high: float | None = None
    per_query: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0))
    clusters: np.ndarray = dataclasses.field(default_factory=lambda: np.zeros(0, np.int64))
    chosen: str = ""
    source: tuple[str, str] = ("", "")
    gain: Mapping[str, Any] = dataclasses.field(default_factory=dict)


# By name of the row and title of the column
Cells = dict[tuple[str, str], Cell]


def read(experiment: Experiment, results: Results, options: Options) -> Cells:
    """Reads all cells.

    Args:
      experiment: that was run.
      results: of its evaluations; a row with a failed one stays empty.
      options: of the command line.

    Returns:
      A cell for each row and column that exist at the size.

    Raises:
      UserError: for an evaluation by an earlier version, which lacks the landmarks of the queries.
    """
    names = data_sets(experiment, options)
    columns = [c for c in experiment.columns_at(options.size) if c.data in names]
    drawn = experiment.sizes[options.size].seed_draws_data
    reader = _Reader(results, options.seeds, experiment.choice, drawn)
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
        counts = gain["queries"], gain["landmarks"]
        return significance.Comparison(significance.Interval(*bounds), p_value, *counts)
    if not len(better.per_query) or not np.array_equal(better.clusters, worse.clusters):
        return None
    return significance.paired(better.per_query, worse.per_query, better.clusters)


class _Reader:
    def __init__(
        self,
        results: Results,
        seeds: Sequence[int],
        choice: Choice | None,
        seed_draws_data: bool,
    ) -> None:
        self._results, self._seeds, self._choice = results, seeds, choice
        self._seed_draws_data = seed_draws_data

    def choose(self, row: Row, columns: Sequence[Column]) -> Setting:
        """Returns the setting of a row that is best on the queries used to choose."""
        if len(row.settings) == 1 or self._choice is None:
            return row.settings[0]
        decisive = [column for column in columns if column.published in self._choice.columns]

        def total(setting: Setting) -> float:
            found = [self._per_query(setting, row, column, False)[0] for column in decisive]
            means = [np.nanmean(values) for values in found if not np.isnan(values).all()]
            return sum(means) if len(means) == len(found) else -np.inf

        return max(row.settings, key=total)

    def cell(self, setting: Setting, row: Row, column: Column) -> Cell:
        """Returns the cell of a setting, on the queries used to measure."""
        values, clusters = self._per_query(setting, row, column, True)
        if len(values) and not np.isnan(values).all():
            value, *bounds = significance.interval(values, clusters)
            low, high = map(significance.number_or_none, bounds)
            return Cell(value, low, high, values, clusters)
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
        return dataclasses.replace(cell, low=low, high=high, gain=gain)

    def _per_query(
        self, setting: Setting, row: Row, column: Column, measured: bool
    ) -> tuple[np.ndarray, np.ndarray]:
        """Values of queries and their clusters; with a choice, those to measure or choose by."""
        metrics = self._metrics(setting, column)
        found = [_find(one, column.per_query, row.method) for one in metrics]
        if not metrics or any(one is None for one in found):
            return np.zeros(0), np.zeros(0, np.int64)
        values = [np.asarray(one, np.float64) for one in found]
        landmarks = [_landmarks(setting, one) for one in metrics]
        if self._choice is not None:
            chosen = [part % 2 == int(measured) for part in landmarks]
            values = [part[half] for part, half in zip(values, chosen, strict=True)]
            landmarks = [part[half] for part, half in zip(landmarks, chosen, strict=True)]
        if len(values) == 1:
            return values[0], landmarks[0]
        if self._seed_draws_data:  # queries of a seed share its networks, too
            seeds = [np.full(len(part), seed) for seed, part in enumerate(values)]
            return np.concatenate(values), np.concatenate(seeds)
        return np.mean(values, axis=0), landmarks[0]

    def _metrics(self, setting: Setting, column: Column) -> list[Mapping[str, Any]]:
        """Metrics of all seeds; none if the run of one failed."""
        found = [self._results[setting.name, column.data, seed] for seed in self._seeds]
        known = [one.metrics["evaluate"] for one in found if "evaluate" in one.metrics]
        return known if len(known) == len(found) else []


def _landmarks(setting: Setting, metrics: Mapping[str, Any]) -> np.ndarray:
    if "query_landmarks" not in metrics:
        rule = "was evaluated by an earlier version, without query_landmarks; use --overwrite"
        raise UserError("setting", setting.name, rule)
    return np.array(metrics["query_landmarks"], np.int64)


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
