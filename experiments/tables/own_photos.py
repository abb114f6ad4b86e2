r"""Own photographs: precision of `delg search FOLDER` by method.

    delg search FOLDER --workdir=WORKDIR QUERY.jpg
    python -m experiments.tables.own_photos --index=WORKDIR --queries=QUERIES

The folders of the images in the index are classes, as in FOLDER/CLASS/*.jpg; QUERIES has folders of
the same names. The first --per_class images of each class in QUERIES are searched for. Precision at
5 is the share of the first five results that are of the class of the query, and at most what the
class has. Intervals and p-values, against --method, are by class. Writes own_photos.json and .md
into --results.
"""

import pathlib
import sys
from collections.abc import Mapping, Sequence

import numpy as np
from absl import flags

from delg_jax import file_names
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data import images
from delg_jax.data.folder import labelled
from delg_jax.errors import UserError
from delg_jax.evaluation import significance
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.retrieval.searcher import Searcher

_TOP = 5


def chosen_queries(folder: pathlib.Path, classes: set[str], count: int) -> list[tuple[str, str]]:
    """Name and class of the first images of each class, of those with images in the database."""
    taken: dict[str, list[str]] = {}
    for name, label in labelled(folder):
        if label in classes and len(taken.setdefault(label, [])) < count:
            taken[label].append(name)
    return [(name, label) for label, names in taken.items() for name in names]


def precisions(found: Sequence[str], label: str, positives: int) -> tuple[float, float]:
    """Precision at 5 and at 1 of the classes that were found, in percent.

    Args:
      found: class of each result, best first.
      label: class of the query.
      positives: images of that class in the database.
    """
    right = np.array([one == label for one in found[:_TOP]])
    return 100 * right.sum() / min(_TOP, positives), 100 * float(right[:1].sum())


def measure(
    searcher: Searcher, folder: pathlib.Path, queries: Sequence[tuple[str, str]]
) -> dict[str, np.ndarray]:
    """Precisions at 5 and 1 by method, each float [2, Q]."""
    of_image = [name.partition("/")[0] for name in searcher.source.names]
    rows: dict[str, list[tuple[float, float]]] = {method: [] for method in searcher.methods}
    with Progress("search", len(queries), "query") as progress:
        for name, label in queries:
            encoded = file_names.to_path(folder, name).read_bytes()
            query = searcher.query(images.decode(encoded))
            for method, row in rows.items():
                hits = searcher.search(query, method, _TOP).hits
                found = [of_image[hit.image] for hit in hits]
                row.append(precisions(found, label, of_image.count(label)))
            progress.advance()
    return {method: np.array(row).T for method, row in rows.items()}


def table(
    found: Mapping[str, np.ndarray], classes: np.ndarray, against: str
) -> tuple[list[dict], str]:
    """Rows for JSON, and the table in Markdown."""
    rows, lines = [], []
    for method, (at_five, at_one) in found.items():
        five = significance.interval(at_five, classes)
        row = {
            "method": method,
            "p@5": five._asdict(),
            "p@1": float(at_one.mean()),
            "p_value": None,
        }
        p_value = "-"
        if method != against:
            row["p_value"] = significance.paired(at_five, found[against][0], classes).p_value
            p_value = f"{row['p_value']:.2g}"
        rows.append(row)
        interval = f"{five.mean:.1f} [{five.low:.1f}, {five.high:.1f}]"
        lines.append([f"`{method}`", interval, f"{row['p@1']:.1f}", p_value])
    header = ["method", "precision at 5, percent", "precision at 1", f"p against `{against}`"]
    return rows, markdown(header, lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "index", "", "Workdir of delg search FOLDER.")
    arguments.define_path(values, "queries", "", "Folder of queries, QUERIES/CLASS/*.jpg.")
    flags.DEFINE_integer("per_class", 2, "Queries of each class.", 1, flag_values=values)
    text = "Method that the others are compared with."
    flags.DEFINE_string("method", "local+mds", text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Searches for every query by every method, and prints the table."""
    root, folder = pathlib.Path(values.index), pathlib.Path(values.queries)
    if not values.queries or not folder.is_dir():
        raise UserError("--queries", values.queries, "must be a folder of folders of images")
    config = stored_config.read(root)
    searcher = Searcher(config, root)
    if values.method not in searcher.methods:
        rule = f"must be one of {', '.join(searcher.methods)}"
        raise UserError("--method", values.method, rule)
    classes = {name.partition("/")[0] for name in searcher.source.names}
    queries = chosen_queries(folder, classes, values.per_class)
    if not queries:
        rule = "has no image in a folder with the name of one in the index"
        raise UserError("--queries", values.queries, rule)
    found = measure(searcher, folder, queries)
    labels = np.unique([label for _, label in queries], return_inverse=True)[1]
    rows, text = table(found, labels, values.method)
    count = len(searcher.source.names)
    counts = f"{len(queries)} queries of {len(set(labels))} classes; {count} images"
    content = {"queries": len(queries), "images": count, "methods": rows}
    text = f"{text}\n\n{counts}; weights {config.model.pretrained or config.model.checkpoint}.\n"
    harness.write_result(values.results, "own_photos", content, text, config=config)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
