"""The table of an experiment: the paper's numbers, ours, and on its data the difference."""

import dataclasses
import pathlib
from collections.abc import Sequence
from typing import Any

from delg_jax.benchmarks import harness
from delg_jax.evaluation import significance
from delg_jax.reports.tables import markdown
from experiments.framework import plan
from experiments.framework.experiment import Column, Experiment, Row
from experiments.framework.plan import Options
from experiments.framework.table_cells import Cell, Cells, compare


@dataclasses.dataclass(frozen=True)
class PaperTable:
    """The table of an experiment at one size.

    Attributes:
      experiment: that was run.
      options: of the command line.
      cells: the measured numbers.
      failures: runs that failed, with the reason.
    """

    experiment: Experiment
    options: Options
    cells: Cells
    failures: Sequence[str] = ()

    def markdown(self) -> str:
        """Returns title, description, a table for each data set, and a table of the claims."""
        experiment = self.experiment
        parts = [f"# {experiment.place}", _about(experiment, self.options)]
        if experiment.measure is None:
            parts[-1] += f" In brackets: 95 % bootstrap intervals over {self._clusters()}."
        titles = self._titles()
        columns = [c for c in experiment.columns_at(self.options.size) if c.title in titles]
        for data in dict.fromkeys(column.data for column in columns):
            parts.append(self._table([column for column in columns if column.data == data]))
        parts += self._choices()
        if claims := self._claims():
            parts.append(_claims_table(claims))
        parts += [experiment.note] if experiment.note else []
        parts += [f"Failed: {failure}" for failure in self.failures]
        return "\n\n".join(parts) + "\n"

    def content(self) -> dict[str, Any]:
        """Returns the same numbers for JSON."""
        experiment, size = self.experiment, self.experiment.sizes[self.options.size]
        return {
            "name": experiment.name,
            "place": experiment.place,
            "size": self.options.size,
            "data": size.about,
            "of_paper": size.of_paper,
            "seeds": list(self.options.seeds),
            "changes": dict(self.options.changes),
            "cells": [
                self._entry(row, column) for row in self._rows() for column in self._columns()
            ],
            "claims": self._claims(),
            "failures": list(self.failures),
        }

    def write(self, folder: pathlib.Path) -> None:
        """Writes NAME_SIZE.json and NAME_SIZE.md into a folder."""
        name = f"{self.experiment.name}_{self.options.size}"
        made_from = plan.fields(self.experiment, self.options)
        harness.write_result(folder, name, self.content(), self.markdown(), config=made_from)

    def _rows(self) -> list[Row]:
        return self.experiment.rows_at(self.options.size)

    def _titles(self) -> list[str]:
        return list(dict.fromkeys(title for _, title in self.cells))

    def _columns(self) -> list[Column]:
        titles = self._titles()
        return [c for c in self.experiment.columns_at(self.options.size) if c.title in titles]

    def _is_of_paper(self) -> bool:
        return self.experiment.sizes[self.options.size].of_paper

    def _table(self, columns: Sequence[Column]) -> str:
        """One table; the paper's numbers stand beside, with a difference only on its own data."""
        header = [self.experiment.place.partition(":")[0]]
        published = {title for row in self._rows() for title in row.paper}
        for column in columns:
            if column.published not in published:
                header.append(column.title)
            elif self._is_of_paper():
                header += [f"{column.title}: paper", "ours", "difference"]
            else:
                header += [column.title, f"the paper's {column.published}"]
        rows = []
        for row in self._rows():
            cells = [row.name]
            for column in columns:
                value = row.paper.get(column.published)
                cell = self.cells[row.name, column.title]
                if column.published not in published:
                    cells.append(_ours(cell))
                elif self._is_of_paper():
                    cells += [_number(value), _ours(cell), _number(_difference(value, cell), "+")]
                else:
                    cells += [_ours(cell), _number(value)]
            rows.append(cells)
        return markdown(header, rows)

    def _entry(self, row: Row, column: Column) -> dict[str, Any]:
        paper, cell = row.paper.get(column.published), self.cells[row.name, column.title]
        return {
            "row": row.name,
            "column": column.title,
            "paper": paper,
            "ours": cell.value,
            "low": cell.low,
            "high": cell.high,
            **({"difference": _difference(paper, cell)} if self._is_of_paper() else {}),
            **({"chosen": cell.chosen} if cell.chosen else {}),
        }

    def _choices(self) -> list[str]:
        """Returns how rows chose a setting, and which."""
        choice = self.experiment.choice
        if choice is None:
            return []
        shown = {column.published: column.title for column in self._columns()}
        titles = [shown.get(title, title) for title in choice.columns]
        rule = (
            "Landmarks are taken in turn, each with its queries, to choose the setting of a row, "
            f"by the sum of {' and '.join(titles)}, and to measure all rows."
        )
        first = self._titles()[:1]
        cells = {row.name: self.cells[row.name, title] for row in self._rows() for title in first}
        chosen = [f"{name}: {cell.chosen}." for name, cell in cells.items() if cell.chosen]
        return [" ".join([rule, "Chosen were", *chosen])] if chosen else [rule]

    def _claims(self) -> list[dict[str, Any]]:
        found = []
        for claim in self.experiment.claims_at(self.options.size):
            for title in self._titles():
                better, worse = (self.cells[name, title] for name in (claim.better, claim.worse))
                if better.value is not None and worse.value is not None:
                    names = {"better": claim.better, "worse": claim.worse, "column": title}
                    found.append(names | _tested(better, worse))
        adjusted = significance.holm([claim["p_value"] for claim in found])
        return [claim | {"p_holm": p} for claim, p in zip(found, adjusted, strict=True)]

    def _clusters(self) -> str:
        """What is drawn for an interval."""
        drawn = self.experiment.sizes[self.options.size].seed_draws_data
        return "seeds" if drawn and len(self.options.seeds) > 1 else "landmarks"


def _tested(better: Cell, worse: Cell) -> dict[str, float | int | None]:
    tested = compare(better, worse)
    return {
        "difference": better.value - worse.value,
        "low": tested.difference.low if tested else None,
        "high": tested.difference.high if tested else None,
        "p_value": tested.p_value if tested else None,
        "queries": tested.queries if tested else None,
        "clusters": tested.landmarks if tested else None,
    }


def _about(experiment: Experiment, options: Options) -> str:
    size = experiment.sizes[options.size]
    same = "the paper's" if size.of_paper else "not the paper's"
    if any(row.paper for row in experiment.rows) and not size.of_paper:
        same += ", whose numbers only stand beside"
    seeds = ", ".join(map(str, options.seeds))
    changes = "".join(f"; {path}={value}" for path, value in options.changes.items())
    text = f"Size {options.size}: {size.about}. These data are {same}. Seeds: {seeds}{changes}."
    return f"{text} {_overlap(options)}" if size.of_paper and size.training else text


def _overlap(options: Options) -> str:
    """Whether training images that show what the test shows were left out."""
    path = options.changes.get("data.exclude")
    if not path:
        return "Training images that show what queries show were not left out (`data.exclude`)."
    return f"Training images listed in {path} were left out (`data.exclude`)."


def _ours(cell: Cell) -> str:
    interval = "" if cell.low is None else f" [{cell.low:.2f}, {cell.high:.2f}]"
    return f"{_number(cell.value)}{interval}"


def _difference(paper: float | None, cell: Cell) -> float | None:
    return None if paper is None or cell.value is None else cell.value - paper


def _claims_table(claims: Sequence[dict[str, Any]]) -> str:
    rows = []
    for claim in claims:
        gain = f"{claim['difference']:+.2f}"
        if claim["low"] is not None:
            gain += f" [{claim['low']:+.2f}, {claim['high']:+.2f}]"
        tests = ["-" if p is None else f"{p:.4f}" for p in (claim["p_value"], claim["p_holm"])]
        counts = "-" if claim["queries"] is None else f"{claim['queries']} ({claim['clusters']})"
        claimed = f"{claim['better']} over {claim['worse']}"
        rows.append([claimed, claim["column"], counts, gain, *tests])
    header = ["claimed", "column", "queries (clusters)", "difference", "p", "p (Holm)"]
    return markdown(header, rows)


def _number(value: float | None, sign: str = "") -> str:
    return "-" if value is None else format(value, f"{sign}.2f")
