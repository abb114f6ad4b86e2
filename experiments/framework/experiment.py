"""What an experiment is: networks, settings, and the rows and columns of a table of a paper."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

SIZES = ("paper", "real", "quick")


@dataclasses.dataclass(frozen=True)
class Training:
    """A network that settings share; it is trained once for all tables of a working directory.

    Attributes:
      name: of its folder, with the seed.
      overrides: fields of `config.model` and `config.train`; those of the model hold for the
        evaluation too.
      start: the training whose network this one begins with; None for that of the size.
      share: of the steps of the size.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: "Training | None" = None
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """What is evaluated once, however many rows read it.

    Attributes:
      name: of its folder, with data set and seed.
      methods: `config.eval.methods`.
      training: the network; None for that of the size, untrained.
      overrides: fields of the evaluation.
      imports_sift: whether SIFT takes the place of the local features of the network.
    """

    name: str
    methods: tuple[str, ...] = ("global",)
    training: Training | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    imports_sift: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """Where a number stands in the metrics of an evaluation.

    Attributes:
      title: unique in the table.
      data: key of `Size.data`.
      value: path of the number, with slashes; {method} is that of the row.
      per_query: path of a list of one number per query, whose mean is the value; empty if there is
        none, and then there is no choice.
      interval: path of low and high, a list or an object of these names, for a number that is no
        mean over queries.
      comparison: path of its comparison with the search of the same evaluation.
    """

    title: str
    data: str
    value: str
    per_query: str = ""
    interval: str = ""
    comparison: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      name: unique in the table.
      settings: what is evaluated; of several the best is chosen, see `Choice`.
      method: fills {method} in the paths of the columns.
      paper: what the paper reports, by the title of the column.
      sizes: at which the row exists.
    """

    name: str
    settings: tuple[Setting, ...]
    method: str = "global"
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sizes: tuple[str, ...] = SIZES


@dataclasses.dataclass(frozen=True)
class Claim:
    """A direction that the paper reports.

    Attributes:
      better: name of a row.
      worse: name of another.
    """

    better: str
    worse: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a row chooses one of its settings, and what all rows are measured on.

    Queries are taken in blocks of `group`, in turn to choose and to measure. A row takes the
    setting with the largest sum of the means of `columns` over the former; of equal ones the first.

    Attributes:
      columns: titles.
      group: queries that stay together, because they show one landmark.
    """

    columns: tuple[str, ...]
    group: int


@dataclasses.dataclass(frozen=True)
class Base:
    """The configuration that all runs of a kind change.

    Attributes:
      get_config: of a module in `configs`.
      argument: its argument.
      overrides: of its fields; {data} and {weights} stand for the folders of the command line.
    """

    get_config: Callable[[str], ml_collections.ConfigDict]
    argument: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Size:
    """How large an experiment is run.

    Attributes:
      about: data and network in words, for the line above the table.
      evaluation: base of the evaluations.
      data: overrides of each data set there is, by name.
      training: base of the trainings; None if there are none and every setting has the network of
        the evaluation.
      of_paper: whether data and network are the paper's, so that numbers can be compared.
    """

    about: str
    evaluation: Base
    data: Mapping[str, Mapping[str, Any]]
    training: Base | None = None
    of_paper: bool = False


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table of a paper.

    Attributes:
      name: of the module and of what it writes.
      place: where the table stands.
      columns: numbers that are read.
      rows: what they are read of.
      sizes: by name, keys of `SIZES`.
      claims: directions that are tested.
      choice: how rows with several settings choose; None if there are none.
      measure: what gives the metrics of a configuration, if it is not the evaluation stage.
      note: said below the table.
    """

    name: str
    place: str
    columns: tuple[Column, ...]
    rows: tuple[Row, ...]
    sizes: Mapping[str, Size]
    claims: tuple[Claim, ...] = ()
    choice: Choice | None = None
    measure: Callable[[ml_collections.ConfigDict], dict[str, Any]] | None = None
    note: str = ""

    def columns_at(self, size: str) -> list[Column]:
        """The columns whose data set there is at a size."""
        return [column for column in self.columns if column.data in self.sizes[size].data]

    def rows_at(self, size: str) -> list[Row]:
        """The rows that exist at a size."""
        return [row for row in self.rows if size in row.sizes]

    def claims_at(self, size: str) -> list[Claim]:
        """The claims whose two rows exist at a size."""
        names = {row.name for row in self.rows_at(size)}
        return [claim for claim in self.claims if {claim.better, claim.worse} <= names]


def map_columns(data: str, title: str, protocols: tuple[str, ...]) -> tuple[Column, ...]:
    """Columns of mean average precision, one for each protocol.

    Args:
      data: key of `Size.data`.
      title: of the data set; the columns are called `title Medium` and so on.
      protocols: of `revisited.PROTOCOLS`.

    Returns:
      The columns.
    """
    return tuple(
        Column(
            f"{title} {protocol.capitalize()}",
            data,
            f"methods/{{method}}/{protocol}/map",
            f"average_precisions/{{method}}/{protocol}",
        )
        for protocol in protocols
    )
