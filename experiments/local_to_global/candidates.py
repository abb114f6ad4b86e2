"""Search through candidates beside exact search: time and precision, one query at a time.

    python -m experiments.local_to_global.candidates --features=WORKDIR --work=DIR [--ablate]

WORKDIR holds the features of a revisited data set. Local search, and its re-rankings with and
without global descriptors, are measured with exact search and through the first --candidates images
of the inverted file `asmk`, with the idf of its visual words, because that of a sample costs more
than the candidates; all re-rank with one stored similarity graph, built in --work. Beside
them, ASMK* ranks by itself, with this code and with that of the package asmk, both with the same
words; its row needs `pip install asmk faiss-cpu`. --ablate changes one thing at a time.
What a killed run has measured is kept. Writes NAME.json and .md into --results.
"""

import importlib
import importlib.util
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import flags

from configs.local_to_global import CANDIDATES, ON_THE_FLY
from delg_jax import configuration, json_files, workdir
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.features import Extracted, extract
from delg_jax.features.in_memory import CachedFeatures
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.retrieval import methods
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search import SimilarityGraph, engines
from delg_jax.search.batching import read_ahead
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.graph import PairGraph
from delg_jax.search.index import build_index, pair_graph
from delg_jax.search.index_store import Place
from delg_jax.search.kmeans import Codebook
from experiments.local_to_global.distractors import alone, read_images
from experiments.local_to_global.query_cost import (
    Stages,
    chosen_fields,
    medium_hard,
    precision,
    tag,
)

METHODS = ("local", "local+mds", "local+mds+global")
_BLOCK = 256  # images that the package aggregates at a time
_FIRST = 50  # images of exact search that are looked for among those found
_EXACT = {"search.engine": "exact", "search.candidates": 0}
_PUBLISHED = {  # ASMK*
    "search.candidates": 0,
    "search.idf_of": "features",
    "search.asmk.aggregate": True,
    "search.asmk.idf": "words",
    "search.asmk.normalize": True,
    "search.asmk.threshold": 0.0,
}
_PEER = "ASMK*, package asmk"
# By what is changed, its values: one field at a time
ABLATION = {
    "search.candidates": (25, 50, 200, 400),
    "search.estimated": (0,),
    "search.idf_of": ("features",),
    "search.idf_power": (1.0,),
    "search.asmk.words": (1024, 4096, 65_536),
    "search.asmk.assignments": (1, 2, 10),
    "search.asmk.aggregate": (True,),
    "search.asmk.idf": ("none", "words"),
    "search.asmk.threshold": (0.0, 0.35),
    "search.asmk.power": (1.0, 5.0),
    "search.idf_images": (50, 100),
    "rerank.mds.short_list": (100, 200),
}
# One bit of each dimension: a cosine of 0.6 is one of 0.41 between signs, on average
_SIGNS = {
    "extract.local_encoding": "sign",
    "search.packed": True,
    "search.threshold": 0.4,
}


class Row(NamedTuple):
    """A way of searching.

    Attributes:
      name: in the table.
      fields: of the configuration, which differ from those of the candidates; of exact search, from
        those of the workdir.
      methods: that are measured.
    """

    name: str
    fields: Mapping[str, Any]
    methods: tuple[str, ...] = METHODS


def rows(ablate: bool) -> list[Row]:
    """The ways of searching, in the order of the table."""
    found = [
        Row("exact", _EXACT),
        Row("candidates", {}),
        Row("ASMK*", _PUBLISHED, METHODS[:1]),
        Row(_PEER, _PUBLISHED, METHODS[:1]),
    ]
    if ablate:
        for field, values in ABLATION.items():
            name = field.removeprefix("search.").removeprefix("rerank.")
            found += [Row(f"{name}={value}", {field: value}) for value in values]
        found.append(Row("graph on the fly", ON_THE_FLY))
        found.append(Row("scores of signs", _SIGNS))
    return found


def measure(
    extracted: Extracted,
    config: ml_collections.ConfigDict,
    graph: SimilarityGraph,
    row: Row,
    folder: pathlib.Path,
) -> dict[str, Any]:
    """Searches with every query, one at a time.

    Args:
      extracted: the features, whose database is read once.
      config: the whole tree, with the fields of the row.
      graph: similarities within the database, unless the row has them computed on the fly.
      row: what is measured.
      folder: gets the index.

    Returns:
      `milliseconds` a query and `map`, by method, of which those of a re-ranking have the search
      in them; `images`, the first of local search, a list for each query.
    """
    encoding = config.extract.local_encoding
    place = _place(extracted, config, folder)
    cached: Any = (_Signs if encoding == "sign" else CachedFeatures)(extracted.database)
    extracted = extracted._replace(database=cached)
    settings, rerank = SearchSettings.of(config.search), RerankSettings.of(config.rerank)
    opened = methods.open_locally(extracted, settings, place)
    similarities: SimilarityGraph | PairGraph = graph
    if rerank.mds.graph == "on_the_fly":
        similarities = pair_graph(extracted, settings, opened)
    count = config.search.max_features
    search: Any = opened
    if row.name == _PEER:
        assert isinstance(opened, engines.AsmkSearch)  # `_PUBLISHED`
        local = cached.local_features(count)
        search = PackageSearch(opened, local.descriptors, local.mask)
    read, stages = read_images(extracted.queries, count), Stages()
    rankings: dict[str, list[Mapping[str, np.ndarray]]] = {method: [] for method in row.methods}
    with Progress(row.name, len(extracted.queries), "query") as progress:
        for number in range(len(extracted.queries)):
            one: Any = extracted._replace(
                queries=alone(read(number), count=count, encoding=encoding)
            )
            with stages("local"):
                first = methods.search("local", one, settings, opened=search)
            rankings["local"].append({"all": first.images})
            for method in row.methods[1:]:
                with stages(method):
                    found = methods.rerank(method, one, first, similarities, rerank)
                rankings[method].append({"all": found.images})
            progress.advance()
    spent = stages.milliseconds()
    return {
        "milliseconds": {
            method: spent[method] + (spent["local"] if method != "local" else 0.0)
            for method in row.methods
        },
        "map": {
            method: precision(found, extracted.data.ground_truth)
            for method, found in rankings.items()
        },
        "images": [found["all"][0, :_FIRST].tolist() for found in rankings["local"]],
    }


def _place(extracted: Extracted, config: ml_collections.ConfigDict, folder: pathlib.Path) -> Place:
    """Of the index in a folder."""
    return Place(folder, f"{extracted.database.digest()} {config.extract.local_encoding}")


class _Signs(CachedFeatures):
    """A store as if it held the signs of its descriptors."""

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """As `FeatureStore.local_features`, cached for each combination of arguments."""
        key = ("signs", count, packed)
        if key not in self._cache:
            local = super().local_features(count)
            codes = encodings.encode(np.asarray(local.descriptors), "sign")
            rows = codes.values if packed else encodings.decode(codes, "sign")
            self._cache[key] = local._replace(descriptors=rows)
        return self._cache[key]


class PackageSearch:
    """ASMK* by the package asmk, with the words and the scoring of an engine of ours.

    Args:
      ours: the engine.
      descriptors: float [N, K, D] of the database.
      mask: bool [N, K].
    """

    def __init__(self, ours: engines.AsmkSearch, descriptors: Any, mask: Any) -> None:
        kernel = importlib.import_module("asmk.kernel")
        inverted_file = importlib.import_module("asmk.inverted_file")
        self._words, self._scoring, self._count = ours.index.codebook, ours.scoring, len(mask)
        with_idf = ours.scoring.idf == "words"
        self._kernel = kernel.ASMKKernel(_Words(self._words), binary=True)
        self._lists = inverted_file.IVF.initialize_empty(
            codebook_size=len(self._words), use_idf=with_idf
        )
        for start, (rows, present) in read_ahead((descriptors, mask), _BLOCK):
            features = rows[present].astype(np.float32)
            owners = np.nonzero(present)[0] + start
            if len(features):
                nearest = self._words.nearest(features)
                self._lists.add(*self._kernel.aggregate(features, nearest, owners))

    def __call__(self, queries: np.ndarray, query_mask: np.ndarray) -> np.ndarray:
        """Similarities float32 [Q, N]."""
        found = np.zeros((len(queries), self._count), np.float32)
        scoring = self._scoring
        for row, (query, valid) in enumerate(zip(queries, query_mask, strict=True)):
            features = np.asarray(query[valid], np.float32)
            if not len(features):
                continue
            images, scores = self._lists.search(
                *self._kernel.aggregate_image(
                    features, self._words.nearest(features, scoring.assignments)
                ),
                similarity_func=lambda *sides: self._kernel.similarity(
                    *sides, alpha=scoring.power, similarity_threshold=scoring.threshold
                ),
                topk=None,
            )
            found[row, images] = scores
        return found


class _Words(NamedTuple):
    """A codebook, as the package takes it."""

    codebook: Codebook

    @property
    def size(self) -> int:
        return len(self.codebook)

    @property
    def centroids(self) -> np.ndarray:
        return self.codebook.centres


def summarized(found: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
    """Adds to each row the share of the first 50 images of exact search that are its own, too."""
    exact = found["exact"]["images"]
    result = {}
    for name, row in found.items():
        shared = [
            len(set(own) & set(best)) / max(len(best), 1)
            for own, best in zip(row["images"], exact, strict=True)
        ]
        result[name] = {key: value for key, value in row.items() if key != "images"}
        result[name]["found_of_first"] = float(np.mean(shared))
    return result


def table(found: Mapping[str, Mapping[str, Any]]) -> str:
    """Returns the rows in Markdown."""
    header = ["search", "of exact's first 50"]
    header += [text for method in METHODS for text in (f"{method} ms", "Medium / Hard")]
    lines = []
    for name, row in found.items():
        cells = [name, f"{100 * row['found_of_first']:.1f} %"]
        for method in METHODS:
            spent = row["milliseconds"].get(method)
            cells += ["" if spent is None else f"{spent:.1f}", medium_hard(row["map"].get(method))]
        lines.append(cells)
    return markdown(header, lines)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "features", None, "Workdir of a revisited data set.")
    arguments.define_path(values, "work", None, "Folder for the graph and indices.")
    text = "Images found by the inverted file, then scored."
    count = CANDIDATES["search.candidates"]
    flags.DEFINE_integer("candidates", count, text, 1, flag_values=values)
    text = "Images behind them, ranked by the inverted file."
    count = CANDIDATES["search.estimated"]
    flags.DEFINE_integer("estimated", count, text, 0, flag_values=values)
    flags.DEFINE_boolean("ablate", False, "Change one thing at a time, too.", flag_values=values)
    text = "A field of the search or of the re-ranking of all rows, as search.graph_features=100."
    flags.DEFINE_multi_string("field", [], text, flag_values=values)
    name = "local_to_global_candidates"
    flags.DEFINE_string("name", name, "Name of the results.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures every row and prints the table."""
    for name in ("features", "work"):
        if not values[name].value:
            raise UserError(f"--{name}", values[name].value, "must be given")
    root, work = pathlib.Path(values.features), pathlib.Path(values.work)
    base = configuration.override(stored_config.read(root), chosen_fields(root, values.field))
    fields = dict(CANDIDATES)
    fields |= {f"search.{name}": values[name].value for name in ("candidates", "estimated")}
    if not base.search.idf_images:  # on which words get their weights
        fields |= {f"search.{name}": base.search[name] for name in ("idf_of", "idf_power")}
    through = configuration.override(base, fields)
    wanted = [row for row in rows(values.ablate) if row.name != _PEER or _has_package()]
    configs = {
        row.name: configuration.override(base if row.name == "exact" else through, row.fields)
        for row in wanted
    }
    for name, config in configs.items():
        # Only exact search builds a graph, which the other rows take
        for method in METHODS if name == "exact" else METHODS[:1]:
            methods.check("--features", method, config)
    extracted = extract(base, root)
    graph = build_index(configs["exact"], work, extracted=extracted)
    found: dict[str, dict[str, Any]] = {}
    for row in wanted:
        config = configs[row.name]
        decides = configuration.flatten(config, ("search", "rerank", "extract.local_encoding"))
        part = work / f"row_{tag(extracted.database.digest(), row.name, decides)}.json"
        known = json_files.read(part, "--work", json_files.each(json_files.anything))
        if known is None:
            decided = ("search.asmk", "search.engine", "search.max_features")
            built = configuration.flatten(config, (*decided, "extract.local_encoding"))
            index = work / f"index_{tag(built)}"
            known = measure(extracted, config, graph, row, index)
            workdir.write_json(part, known)
        found[row.name] = known
        content = {"rows": summarized(found), "features": len(extracted.database)}
        text = table(content["rows"]) + "\n"
        harness.write_result(values.results, values.name, content, text, config=through)
    print(text, end="")


def _has_package() -> bool:
    """Whether the package asmk can be imported, which needs faiss."""
    return all(importlib.util.find_spec(name) is not None for name in ("asmk", "faiss"))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
