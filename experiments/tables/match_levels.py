r"""How often results called strong or weak are right, and a place that is absent is said to be.

    python -m experiments.tables.match_levels --index=WORKDIR --absent=FOLDER

WORKDIR has the features of a data set with queries and right answers, such as ROxford; FOLDER has
photographs of other places, as in FOLDER/PLACE/*.jpg, of which the first --per_class of each place
are searched for. Of the first --top results of each query, precision is the share of right ones
among those of a level or better, and recall the share of the right ones that have it. The share of
queries with any such result is for places that are in the database how often they are said to be,
for absent ones a false alarm. Writes match_levels.json and .md into --results.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Iterable, Sequence

import numpy as np
from absl import flags

from delg_jax import file_names
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data import RetrievalData, images, open_retrieval
from delg_jax.data.folder import labelled
from delg_jax.data.ground_truth import protocol_sets
from delg_jax.errors import UserError
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.retrieval.calibration import CHANCE, LEVELS
from delg_jax.retrieval.searcher import Query, Searcher

_ORDER = (*LEVELS, CHANCE)  # best first


@dataclasses.dataclass(frozen=True)
class Judged:
    """The results of one query.

    Attributes:
      levels: of each.
      right: bool, whether each shows the place of the query.
    """

    levels: Sequence[str]
    right: Sequence[bool]


def judge(searcher: Searcher, query: Query, method: str, top: int) -> tuple[list[int], list[str]]:
    """Images that were found and their levels; a UserError if there are none."""
    hits = searcher.search(query, method, top).hits
    verdict = searcher.judge(query, hits)
    if verdict is None:
        rule = "needs local features, and enough images to calibrate their inliers"
        raise UserError("--index", len(searcher.source), rule)
    return [hit.image for hit in hits], verdict.levels


def judge_present(
    searcher: Searcher, data: RetrievalData, method: str, top: int, limit: int
) -> list[Judged]:
    """Queries with right answers; images that the protocol `medium` ignores are left out."""
    found, places = [], np.flatnonzero([bool(e["easy"] or e["hard"]) for e in data.ground_truth])
    if limit and limit < len(places):
        places = places[np.linspace(0, len(places) - 1, limit).astype(int)]  # of all landmarks
    order = {name: image for image, name in enumerate(searcher.source.names)}
    with Progress("present", len(places), "query") as progress:
        for place in places.tolist():
            entry = data.ground_truth[place]
            picture = images.decode(data.queries.read(place))
            query = searcher.query(picture, entry["bbx"])
            right, ignored = (
                {order[data.database.names[image]] for image in part}
                for part in protocol_sets(entry, "medium")
            )
            rows = [
                (level, image in right)
                for image, level in zip(*judge(searcher, query, method, top), strict=True)
                if image not in ignored
            ]
            found.append(Judged([level for level, _ in rows], [hit for _, hit in rows]))
            progress.advance()
    return found


def judge_absent(
    searcher: Searcher, folder: pathlib.Path, names: Sequence[str], method: str, top: int
) -> list[Judged]:
    """Queries whose places are not in the database."""
    found = []
    with Progress("absent", len(names), "query") as progress:
        for name in names:
            picture = images.decode(file_names.to_path(folder, name).read_bytes())
            _, levels = judge(searcher, searcher.query(picture), method, top)
            found.append(Judged(levels, [False] * len(levels)))
            progress.advance()
    return found


def first_of_each(rows: Iterable[tuple[str, str]], count: int) -> list[str]:
    """Names of the first images of each class."""
    taken: dict[str, list[str]] = {}
    for name, label in rows:
        taken.setdefault(label, []).append(name)
    return [name for names in taken.values() for name in names[:count]]


def measure(present: Sequence[Judged], absent: Sequence[Judged]) -> list[dict]:
    """Precision and recall of each level or better, in percent; None where nothing was found."""
    rows = []
    for number, level in enumerate(_ORDER):
        reached = set(_ORDER[: number + 1])
        marks = [[one in reached for one in query.levels] for query in present]
        hits = sum(map(sum, marks))
        right = sum(map(sum, (query.right for query in present)))
        both = sum(
            mark and correct
            for mark_row, query in zip(marks, present, strict=True)
            for mark, correct in zip(mark_row, query.right, strict=True)
        )
        alarms = [any(one in reached for one in query.levels) for query in absent]
        rows.append(
            {
                "level": level,
                "results": hits,
                "precision": _percent(both, hits),
                "recall": _percent(both, right),
                "present": _percent(sum(map(any, marks)), len(present)),
                "absent": _percent(sum(alarms), len(absent)),
            }
        )
    return rows


def _percent(count: int, whole: int) -> float | None:
    return 100 * count / whole if whole else None


def table(rows: Sequence[dict]) -> str:
    """The table in Markdown."""
    header = [
        "level or better",
        "results",
        "precision, percent",
        "recall",
        "queries with one: place in the database",
        "place absent",
    ]
    names = ("precision", "recall", "present", "absent")
    lines = [
        [
            row["level"],
            str(row["results"]),
            *("-" if row[n] is None else f"{row[n]:.1f}" for n in names),
        ]
        for row in rows
    ]
    return markdown(header, lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", "", "Workdir of a data set with right answers.")
    arguments.define_path(values, "absent", "", "Folder of other places, FOLDER/PLACE/*.jpg.")
    flags.DEFINE_string("method", "local", "Method whose results are judged.", flag_values=values)
    flags.DEFINE_integer("top", 20, "Results of each query.", 1, flag_values=values)
    text = "Queries of the data set, spread over all; 0 for all."
    flags.DEFINE_integer("queries", 0, text, 0, flag_values=values)
    flags.DEFINE_integer("per_class", 2, "Queries of each absent place.", 1, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Searches for every query, and prints the table."""
    root, folder = pathlib.Path(values.index), pathlib.Path(values.absent)
    if not values.absent or not folder.is_dir():
        raise UserError("--absent", values.absent, "must be a folder of folders of images")
    config = stored_config.read(root)
    data = open_retrieval(config.data)
    if not any(entry["easy"] or entry["hard"] for entry in data.ground_truth):
        raise UserError("--index", values.index, "must be of a data set with right answers")
    names = first_of_each(labelled(folder), values.per_class)
    searcher = Searcher(config, root)
    method, top = values.method, values.top
    present = judge_present(searcher, data, method, top, values.queries)
    absent = judge_absent(searcher, folder, names, method, top)
    rows = measure(present, absent)
    counts = f"Method {method}, the first {top} results; {len(present)} queries whose place is "
    counts += f"among {len(searcher.source)} images, {len(absent)} whose place is not."
    text = f"{table(rows)}\n\n{counts}\n"
    content = {"method": method, "present": len(present), "absent": len(absent), "rows": rows}
    harness.write_result(values.results, "match_levels", content, text, config=config)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
