r"""What matters in local-to-global retrieval: one table for each component.

    python -m experiments.local_to_global --workdir=WORKDIR --config.data.root=DIR \
        --config.model.pretrained=WEIGHTS

Starts from a configuration and changes one field at a time. Fields of the search change the local
similarity, and are shown by local search alone unless --graphs, which builds a similarity graph for
each value. Features and graph of the base are made once. Writes local_to_global.json and .md into
--results.
"""

import pathlib
import sys
from collections.abc import Iterator

import ml_collections
from absl import flags

from delg_jax import configuration, workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation import methods, stage
from delg_jax.evaluation.revisited import PROTOCOLS
from delg_jax.features import Extracted, extract
from delg_jax.search import SimilarityGraph
from delg_jax.search.stage import build_index

# Field of config.search, and what it is changed to
SEARCH = {
    "rarity_images": (0, 100, 400, 1600),
    "threshold": (0.5, 0.55, 0.6, 0.65, 0.7),
    "max_features": (50, 100, 200, 400, 800),
    "kernel": ("identity", "threshold", "power", "cann"),
}
# Field of config.rerank.mds
RERANK = {
    "short_list": (50, 100, 200, 400, 700),
    "dim": (8, 32, 128, 256),
    "distance": ("chord", "complement", "power", "reciprocal"),
    "contrast": (0.1, 0.2, 0.3, 0.5, 1.0),
    "background_rank": (0, 400, 800),
    "missing": ("zero", "largest", "row_minimum"),
    "method": ("classical", "landmark", "smacof"),
    "weight": (0.0, 0.2, 0.5, 0.8, 1.0),
    "neighbours": (0, 3, 6, 10),
    "beta": (0.15, 0.3, 0.6, 1.0),
    "concat_weight": (0.2, 0.35, 0.5, 0.7, 0.9),
}
METHODS = ("local", "local+mds", "local+mds+global")
Rows = dict[str, dict[str, dict[str, float]]]  # from value to method to protocol


def measure(
    config: ml_collections.ConfigDict,
    extracted: Extracted,
    graph: SimilarityGraph | None,
    first: methods.Ranking | None = None,
) -> dict[str, dict[str, float]]:
    """MAP in percent by method and protocol; without a graph, of local search alone."""
    first = first or methods.search("local", extracted, config.search)
    found = {}
    for method in METHODS if graph else METHODS[:1]:
        ranks = methods.rerank(method, extracted, first, graph, config.rerank).images
        scored = stage.score({"all": ranks}, extracted.data.ground_truth, (1,))
        found[method] = {name: scored[name]["map"] for name in PROTOCOLS}
    return found


def ablate(
    config: ml_collections.ConfigDict, root: pathlib.Path, graphs: bool
) -> Iterator[tuple[str, Rows]]:
    """Yields the name of a field, and what its values give."""
    extracted = extract(config, root)
    graph = build_index(config, root, extracted=extracted)
    first = methods.search("local", extracted, config.search)
    yield "base", {"as configured": measure(config, extracted, graph, first)}
    for field, values in RERANK.items():
        path = f"rerank.mds.{field}"
        yield (
            path,
            {
                str(value): measure(
                    configuration.override(config, {path: value}), extracted, graph, first
                )
                for value in values
            },
        )
    for field, values in SEARCH.items():
        path, rows = f"search.{field}", {}
        for value in values:
            other = configuration.override(config, {path: value})
            folder = root / "ablation" / f"{field}_{value}"
            mine = build_index(other, folder, extracted=extracted) if graphs else None
            rows[str(value)] = measure(other, extracted, mine)
        yield path, rows


def table(field: str, rows: Rows, base: str) -> str:
    """A Markdown table of one field; the value that is configured is marked."""
    names = list(next(iter(rows.values())))
    lines = [
        f"| {field} | {' | '.join(f'{name} M / H' for name in names)} |",
        f"| --- |{' ---: |' * len(names)}",
    ]
    for value, found in rows.items():
        cells = [f"{row['medium']:.2f} / {row['hard']:.2f}" for row in found.values()]
        mark = " *" if value == base else ""
        lines.append(f"| {value}{mark} | {' | '.join(cells)} |")
    return "\n".join(lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    arguments.define_common(values, argv, config="configs/local_to_global.py:imagenet")
    text = "Build a graph for every value of a field of the search."
    flags.DEFINE_boolean("graphs", False, text, flag_values=values)
    flags.DEFINE_string("results", "experiments/results", "Of the tables.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Measures, and prints each table as it is done."""
    found, texts = {}, []
    known = configuration.flatten(values.config)
    for field, rows in ablate(values.config, pathlib.Path(values.workdir), values.graphs):
        found[field] = rows
        texts.append(table(field, rows, str(known.get(field))))
        print(texts[-1], end="\n\n", flush=True)
    results = pathlib.Path(values.results)
    workdir.write_json(results / "local_to_global.json", found)
    text = "\n\n".join(texts) + "\n\n\\* as configured\n"
    workdir.write_text(results / "local_to_global.md", text)


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
