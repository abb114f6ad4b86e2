"""An experiment: its networks, settings, and the rows and columns of its table."""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import ml_collections

SIZES = ("paper", "real", "quick")


@dataclasses.dataclass(frozen=True)
class Training:
    """A network that settings share; trained once for all tables of a workdir.

    Attributes:
      name: of its folder, with the seed.
      overrides: fields of `config.model` and `config.train`; the evaluation uses those of the model
        too.
      start: the training whose network this one starts from; None for the weights of the size.
      share: of the training steps of the size.
    """

    name: str
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    start: "Training | None" = None
    share: float = 1.0


@dataclasses.dataclass(frozen=True)
class Setting:
    """An evaluation, run once, however many rows read it.

    Attributes:
      name: of its folder, with data set and seed.
      methods: `config.eval.methods`.
      training: the network; None for that of the size without training.
      overrides: fields of the evaluation.
      imports_sift: whether to use SIFT instead of the local features of the network.
    """

    name: str
    methods: tuple[str, ...] = ("global",)
    training: Training | None = None
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    imports_sift: bool = False


@dataclasses.dataclass(frozen=True)
class Column:
    """Where a number is in the metrics of an evaluation.

    Attributes:
      title: unique in the table; that of the paper, if its numbers stand beside.
      data: key of `Size.data`.
      value: path of the number, separated by slashes; {method} is that of the row.
      per_query: path of the list of one number per query, whose mean is the value; empty if there
        is none, in which case no setting can be chosen by it.
      interval: path of low and high, as a list or an object with these keys, for a number that is
        not a mean over queries.
      comparison: path of its comparison with the search of the same evaluation.
      measure: what the title says beside the data set; empty if the title does not name one.
      published: the title at size paper, if that of this size is another.
    """

    title: str
    data: str
    value: str
    per_query: str = ""
    interval: str = ""
    comparison: str = ""
    measure: str = ""
    published: str = ""


@dataclasses.dataclass(frozen=True)
class Row:
    """One row of a table.

    Attributes:
      name: unique in the table.
      settings: what is evaluated; if several, `Choice` says how one is chosen.
      method: replaces {method} in the paths of the columns.
      paper: the numbers of the paper, by title of the column.
      sizes: at which the row exists.
    """

    name: str
    settings: tuple[Setting, ...]
    method: str = "global"
    paper: Mapping[str, float] = dataclasses.field(default_factory=dict)
    sizes: tuple[str, ...] = SIZES


@dataclasses.dataclass(frozen=True)
class Claim:
    """A claim of the paper that one row is better than another.

    Attributes:
      better: name of the better row.
      worse: name of the other row.
    """

    better: str
    worse: str


@dataclasses.dataclass(frozen=True)
class Choice:
    """How a row chooses one of its settings, and the queries that all rows are measured on.

    Landmarks, each with all of its queries, are used in turn to choose and to measure. A row takes
    the setting with the largest sum of the means of `columns` over the former, the first one on a
    tie.

    Attributes:
      columns: titles.
    """

    columns: tuple[str, ...]


@dataclasses.dataclass(frozen=True)
class Base:
    """The configuration that all trainings, or all evaluations, start from.

    Attributes:
      get_config: of a module in `configs`.
      argument: its argument.
      overrides: of its fields; {data} and {weights} are replaced by the folders of these flags.
    """

    get_config: Callable[[str], ml_collections.ConfigDict]
    argument: str = ""
    overrides: Mapping[str, Any] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Size:
    """The scale of an experiment.

    Attributes:
      about: the data and network in words, for the line above the table.
      evaluation: base of the evaluations.
      data: overrides by name of the data set.
      training: base of the trainings; None if nothing is trained and all settings use the network
        of the evaluation.
      of_paper: whether data and network are those of the paper, so that numbers can be compared.
      seed_draws_data: whether each seed has images of its own.
      titles: what data sets are called in the columns, by name, where they are not the paper's.
    """

    about: str
    evaluation: Base
    data: Mapping[str, Mapping[str, Any]]
    training: Base | None = None
    of_paper: bool = False
    seed_draws_data: bool = False
    titles: Mapping[str, str] = dataclasses.field(default_factory=dict)


@dataclasses.dataclass(frozen=True)
class Experiment:
    """A table of a paper.

    Attributes:
      name: of the module and of the files it writes.
      place: number of the table in the paper, and its title.
      columns: of the table.
      rows: of the table.
      sizes: by name, one of `SIZES`.
      claims: that are tested.
      choice: how rows with several settings choose one; None if all have a single setting.
      measure: computes the metrics of a configuration; None to run the evaluation.
      note: shown below the table.
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
        """Returns the columns whose data set exists at a size, under the name that it has there."""
        titles = self.sizes[size].titles
        columns = [column for column in self.columns if column.data in self.sizes[size].data]
        return [
            dataclasses.replace(
                column,
                title=f"{titles[column.data]} {column.measure or column.title}",
                published=column.title,
            )
            if column.data in titles
            else dataclasses.replace(column, published=column.title)
            for column in columns
        ]

    def rows_at(self, size: str) -> list[Row]:
        """Returns the rows that exist at a size."""
        return [row for row in self.rows if size in row.sizes]

    def claims_at(self, size: str) -> list[Claim]:
        """Returns the claims whose rows both exist at a size."""
        names = {row.name for row in self.rows_at(size)}
        return [claim for claim in self.claims if {claim.better, claim.worse} <= names]


def map_columns(data: str, title: str, protocols: tuple[str, ...]) -> tuple[Column, ...]:
    """Returns columns of mean average precision, one for each protocol.

    Args:
      data: key of `Size.data`.
      title: of the data set; a column is called, for example, `title Medium`.
      protocols: of `ground_truth.PROTOCOLS`.

    Returns:
      The columns.
    """
    return tuple(
        Column(
            f"{title} {protocol.capitalize()}",
            data,
            f"methods/{{method}}/{protocol}/map",
            f"average_precisions/{{method}}/{protocol}",
            measure=protocol.capitalize(),
        )
        for protocol in protocols
    )
