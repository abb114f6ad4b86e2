"""Local-to-global search as the database grows: the queries of a workdir among distractors.

    python -m experiments.local_to_global.scale --features=WORKDIR --photographs=DIR --work=DIR \
        [--sizes=1614,10000] [--exact_up_to=10000] [--field=rerank.mds.short_list=100]

WORKDIR holds the features of a revisited data set. Distractors are made of photographs of other
places, and with --rendered of rendered landmarks, whose features are extracted with the network and
the projection of WORKDIR, once; see `distractors`.

The features of the largest database are written to --work as `delg extract` writes them; smaller
ones are its beginning. Each size is searched as `delg search` does, one query at a time, through
`search.candidates` of an inverted file, with the similarities of the short list computed when it
is searched: seconds, bytes and memory of the index, milliseconds a query by stage, mean average
precision by method, and exact search beside it up to --exact_up_to. What a killed run has
extracted, written, built and measured is kept. Writes NAME.json and .md into --results.
"""

import dataclasses
import pathlib
import shutil
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import ml_collections
import numpy as np
from absl import flags

import delg_jax
from configs.local_to_global import CANDIDATES, ON_THE_FLY
from delg_jax import configuration, json_files, workdir
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data import open_training
from delg_jax.data.image_files import SUFFIXES
from delg_jax.errors import UserError
from delg_jax.evaluation.cost import measured
from delg_jax.features import Extracted, extract
from delg_jax.features.extractor import Features
from delg_jax.features.in_memory import CachedFeatures
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.retrieval import methods
from delg_jax.retrieval.settings import RerankSettings
from delg_jax.search import engines
from delg_jax.search.engine_choice import SearchSettings, exact_search
from delg_jax.search.graph import PairGraph
from delg_jax.search.index import pair_graph
from delg_jax.search.index_store import Place
from experiments.local_to_global.distractors import (
    FirstImages,
    alone,
    distractor,
    extract_photographs,
    hardness,
    read_images,
    write_database,
)
from experiments.local_to_global.query_cost import (
    Stages,
    chosen_fields,
    medium_hard,
    precision,
    tag,
)

_CHUNK = 64  # images of a chunk of the store
_DEPTH = 20_000  # images kept of a global ranking
_FIRST = 50  # images of exact search that are looked for among the candidates
_METHODS = ("global", "global+sp", "local", "local+mds", "local+mds+global")
_PLAIN = 4 + 2 * 4 + 4  # bytes of the scale, location and score of a feature
_ENTRY_BYTES = 20  # of a feature in the inverted file, which is written twice


@dataclasses.dataclass(frozen=True)
class _Remembering(PairGraph):
    """Keeps the similarities of the last short list, which several re-rankings take."""

    last: dict[bytes, tuple[np.ndarray, np.ndarray]] = dataclasses.field(default_factory=dict)

    def dense(self, subset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """As `PairGraph.dense`."""
        key = np.asarray(subset).tobytes()
        if key not in self.last:
            self.last.clear()
            self.last[key] = super().dense(subset)
        return self.last[key]


def measure(
    extracted: Extracted,
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    with_exact: bool,
) -> dict[str, Any]:
    """Builds the index of a database and searches it, one query at a time.

    Args:
      extracted: the database, those of the ground truth first, and the queries.
      config: the whole tree.
      folder: gets the index.
      with_exact: whether to search exactly, too.

    Returns:
      `images`; `build_seconds`, None if an earlier run had begun, `build_megabytes`,
      `open_seconds` and `bytes` of the index; `milliseconds` a query and `megabytes` by stage;
      `map` by method and protocol; and with exact search `found_of_first`, the share of its first
      50 images that are candidates.
    """
    search, rerank = SearchSettings.of(config.search), RerankSettings.of(config.rerank)
    database = extracted.database
    place = Place(folder, database.digest_of_first(len(database)))
    begun = folder.is_dir()
    cached: Any = CachedFeatures(database)
    database_features = cached.local_features(search.max_features, search.packed)
    extracted = extracted._replace(database=cached)
    with measured() as built:
        methods.open_locally(extracted, search, place)
    with measured() as opening:
        opened = methods.open_locally(extracted, search, place)
    assert isinstance(opened, engines.CandidateSearch)  # `_config`
    # By the idf of each feature, whatever the candidates have
    plain = dataclasses.replace(search, idf_of="features", idf_power=1.0)
    exact = exact_search(database_features, plain) if with_exact else None
    graph = _Remembering(pair_graph(extracted, search, opened).search)
    query_features = read_images(extracted.queries, search.max_features)
    encoding = database.layout.local_encoding
    stages, rankings = Stages(), dict[str, list[Mapping[str, np.ndarray]]]()
    found_of_first = []
    with Progress(f"{len(database)} images", len(extracted.queries), "query") as progress:
        for row in range(len(extracted.queries)):
            query: Any = alone(query_features(row), count=search.max_features, encoding=encoding)
            one = extracted._replace(queries=query)
            excluded = methods.junk_by_protocol(extracted.data.ground_truth[row : row + 1])
            found = _rank(one, opened, search, rerank, config.seed, graph, excluded, stages)
            for method, ranks in found.items():
                rankings.setdefault(method, []).append(ranks)
            if exact is not None:
                local = query.local_features(search.max_features, search.packed)
                asked = local.descriptors, local.mask
                with stages("exact"):
                    _, images = exact.top(*asked, search.candidates + search.estimated)
                rankings.setdefault("exact", []).append({"all": images})
                _, candidates = opened.first.top(*asked, search.candidates)
                same = np.isin(images[0, :_FIRST], candidates)
                found_of_first.append(float(same.mean()))
            progress.advance()
    result: dict[str, Any] = {
        "images": len(database),
        "build_seconds": None if begun else built.seconds,
        "build_megabytes": None if begun else built.megabytes,
        "open_seconds": opening.seconds,
        "bytes": _bytes(folder),
        "milliseconds": stages.milliseconds(),
        "megabytes": stages.megabytes(),
        "map": {
            method: precision(ranks, extracted.data.ground_truth)
            for method, ranks in rankings.items()
        },
    }
    if with_exact:
        result["found_of_first"] = float(np.mean(found_of_first))
    return result


def _rank(
    one: Extracted,
    opened: engines.CandidateSearch,
    search: SearchSettings,
    rerank: RerankSettings,
    seed: int,
    graph: PairGraph,
    excluded: Sequence[methods.Excluded],
    stages: Stages,
) -> dict[str, Mapping[str, np.ndarray]]:
    """The rankings of one query by method and protocol; stages get what each costs."""
    local = one.queries.local_features(search.max_features, search.packed)
    found: dict[str, Mapping[str, np.ndarray]] = {}
    with stages("global"):
        pooled = methods.search("global", one, search, depth=_DEPTH)
    found["global"] = {"all": pooled.images}
    with stages("global+sp"):
        verified = methods.verify(one, pooled, rerank.sp, seed, excluded, quiet=True)
    found["global+sp"] = verified.by_protocol
    with stages("candidates"):
        opened.first.top(local.descriptors, local.mask, opened.count)
    with stages("local"):
        first = methods.search("local", one, search, opened=opened)
    found["local"] = {"all": first.images}
    with stages("pairs"):
        graph.dense(first.compared().images[0, : rerank.mds.short_list])
    for method in ("local+mds", "local+mds+global"):
        with stages(method):
            ranking = methods.rerank(method, one, first, graph, rerank, search.global_block)
        found[method] = {"all": ranking.images}
    return found


def _bytes(folder: pathlib.Path) -> int:
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file())


def exponents(rows: Sequence[Mapping[str, Any]]) -> dict[str, float]:
    """The exponent of the growth of each stage, and of building; none for a single size."""
    stages = rows[0]["milliseconds"]
    curves = {
        stage: [
            (row["images"], row["milliseconds"][stage])
            for row in rows
            if stage in row["milliseconds"]
        ]
        for stage in stages
    }
    curves["build"] = [
        (row["images"], row["build_seconds"]) for row in rows if row["build_seconds"]
    ]
    return {
        name: harness.growth_exponent(points) for name, points in curves.items() if len(points) > 1
    }


def table(content: Mapping[str, Any]) -> str:
    """Returns the result in Markdown."""
    rows = content["rows"]
    stages = list(dict.fromkeys(stage for row in rows for stage in row["milliseconds"]))
    costs = [
        [
            f"{row['images']:,}",
            "" if row["build_seconds"] is None else f"{row['build_seconds']:.0f}",
            f"{row['open_seconds']:.2f}",
            f"{row['feature_bytes'] / 1e9:.3f}",
            f"{row['bytes'] / 1e9:.3f}",
            *(f"{row['milliseconds'][s]:.0f}" if s in row["milliseconds"] else "" for s in stages),
        ]
        for row in rows
    ]
    header = [
        "images",
        "build s",
        "open s",
        "features GB",
        "index GB",
        *(f"{s} ms" for s in stages),
    ]
    named = list(dict.fromkeys(method for row in rows for method in row["map"]))
    precisions = [
        [f"{row['images']:,}", *(medium_hard(row["map"].get(method)) for method in named)]
        for row in rows
    ]
    text = markdown(header, costs)
    text += "\n\nMean average precision, Medium / Hard:\n\n"
    text += markdown(["images", *named], precisions)
    grown = ", ".join(f"{name} {value:.2f}" for name, value in content["exponents"].items())
    if grown:
        text += f"\n\nExponents of growth: {grown}."
    nearest = ", ".join(f"{name} {value:.4f}" for name, value in content["hardness"].items())
    return f"{text}\n\nMean similarity of the queries to the nearest tenth: {nearest}.\n"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "features", None, "Workdir of a revisited data set.")
    arguments.define_path(values, "photographs", None, "Folder of photographs of other places.")
    arguments.define_path(values, "work", None, "Folder for descriptors and indices.")
    sizes = ["1614", "10000"]
    flags.DEFINE_list("sizes", sizes, "Images of each database.", flag_values=values)
    text = "Largest database that is also searched exactly."
    flags.DEFINE_integer("exact_up_to", 1614, text, flag_values=values)
    text = "Photographs that distractors are made of."
    flags.DEFINE_integer("photographs_used", 200, text, 2, flag_values=values)
    text = "Rendered photographs that distractors are made of, too."
    flags.DEFINE_integer("rendered", 0, text, 0, flag_values=values)
    flags.DEFINE_integer("max_features", 300, "Features of an image.", 1, flag_values=values)
    text = "How local descriptors are written."
    choices = ["float16", "int8", "sign"]
    flags.DEFINE_enum("encoding", "float16", choices, text, flag_values=values)
    text = "A field of the search or of the re-ranking, as search.asmk.words=4096."
    flags.DEFINE_multi_string("field", [], text, flag_values=values)
    flags.DEFINE_string("name", "local_to_global_scale", "Name of the results.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures every size and prints the table."""
    for name in ("features", "photographs", "work"):
        if not values[name].value:
            raise UserError(f"--{name}", values[name].value, "must be given")
    sizes = sorted(int(size) for size in values.sizes)
    root, work = pathlib.Path(values.features), pathlib.Path(values.work)
    config = _config(root, values)
    extracted = extract(stored_config.read(root), root)
    if sizes[0] < len(extracted.database):
        rule = f"must hold the images of the ground truth, at least {len(extracted.database)}"
        raise UserError("--sizes", sizes[0], rule)
    count = config.search.max_features
    layout = Layout(_CHUNK, values.encoding, "float16", count)
    _require_space(work, sizes[-1], layout, extracted)
    stores = _sources(root, config, extracted, work, values)
    kinds: dict[str, list[Features]] = {
        name: [image for image in map(read_images(store, count), range(len(store)))]
        for name, store in stores.items()
    }
    every = [image for images in kinds.values() for image in images if image.local.mask.any()]
    kinds["distractors"] = [distractor(every, number) for number in range(len(every))]
    compared = hardness(extracted.queries, kinds, SearchSettings.of(config.search))
    sources = [store.digest() for store in (extracted.database, *stores.values())]
    made_from = tag(sources, layout)
    folder = work / f"features_{made_from}"
    whole = write_database(extracted.database, every, sizes[-1], layout, folder)
    feature_bytes = _bytes(whole.folder)
    rows = []
    for size in sizes:
        with_exact = size <= values.exact_up_to
        fields = configuration.flatten(config, ("search", "rerank", "seed"))
        part = work / f"size_{size}_{tag(made_from, fields, with_exact)}.json"
        row = json_files.read(part, "--work", json_files.each(json_files.anything))
        if row is None:
            first: Any = FirstImages(whole, size, config.data.memory_megabytes)
            kept = configuration.flatten(config, ("search.asmk", "search.ivf", "search.engine"))
            index = work / f"index_{size}_{tag(made_from, kept)}"
            row = measure(extracted._replace(database=first), config, index, with_exact)
            row["feature_bytes"] = feature_bytes * size // len(whole)
            workdir.write_json(part, row)
        rows.append(row)
        content = {
            "rows": rows,
            "exponents": exponents(rows),
            "hardness": compared,
            "sources": {name: len(store) for name, store in stores.items()},
            "layout": layout._asdict(),
        }
        text = table(content)
        harness.write_result(values.results, values.name, content, text, config=config)
    print(text, end="")


def _require_space(work: pathlib.Path, count: int, layout: Layout, extracted: Extracted) -> None:
    """Refuses databases that do not fit on the disk of --work, beside what is there."""
    work.mkdir(parents=True, exist_ok=True)
    dimension = extracted.database.local_features(1).descriptors.shape[-1]
    bits = {"float16": 16, "int8": 8, "sign": 1}[layout.local_encoding]
    feature = dimension * bits // 8 + _PLAIN + 2 * _ENTRY_BYTES
    pooled = 2 * extracted.database.global_descriptors().shape[-1]
    needed = count * (layout.max_features * feature + pooled) - _bytes(work)
    free = shutil.disk_usage(work).free
    if needed > free:
        rule = f"need {needed / 1e9:.1f} GB more in {work}, which has {free / 1e9:.1f}; "
        raise UserError("--sizes", count, f"{rule}take --encoding=int8 or fewer features or images")


def _sources(
    root: pathlib.Path,
    config: ml_collections.ConfigDict,
    extracted: Extracted,
    work: pathlib.Path,
    values: Any,
) -> dict[str, FeatureStore]:
    """The photographs, and the rendered ones if asked for, that distractors are made of."""
    folder = pathlib.Path(values.photographs)
    paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
    if len(paths) < 2:
        raise UserError("--photographs", str(folder), "must hold at least two photographs")
    chosen = _evenly(paths, values.photographs_used)
    pictures = {"photographs": {str(p.relative_to(folder)): _getter(p) for p in chosen}}
    if values.rendered:
        place = {"data.name": "synthetic", "data.tfds_dir": str(work / "rendered"), "data.root": ""}
        source = open_training(configuration.override(config, place).data).train
        rows = _evenly(range(len(source)), values.rendered)
        pictures["rendered"] = {source.names[row]: _reader(source, row) for row in rows}
    model, count = delg_jax.load(root), config.search.max_features
    made_with = extracted.weights, extracted.database.digest(), count
    return {
        name: extract_photographs(model, some, count, work / f"{name}_{tag(made_with, list(some))}")
        for name, some in pictures.items()
    }


def _evenly(items: Sequence, count: int) -> list:
    chosen = np.unique(np.linspace(0, len(items) - 1, count).astype(int))
    return [items[int(index)] for index in chosen]


def _getter(path: pathlib.Path) -> Callable[[], pathlib.Path]:
    return lambda: path


def _reader(source: Any, row: int) -> Callable[[], bytes]:
    return lambda: source.read(row)


def _config(root: pathlib.Path, values: flags.FlagValues) -> ml_collections.ConfigDict:
    """The configuration of a workdir with the search of `local_to_global:large` and the flags."""
    kept = {f"{part}.max_features": values.max_features for part in ("search", "rerank.sp")}
    fields = {**CANDIDATES, **ON_THE_FLY, **kept, **chosen_fields(root, values.field)}
    config = configuration.override(stored_config.read(root), fields)
    config = configuration.override(config, {"extract.local_encoding": values.encoding})
    for method in _METHODS:
        methods.check("--features", method, config)
    if not config.search.candidates:
        raise UserError("--field", "search.candidates=0", "must be positive: candidates are scored")
    if config.rerank.mds.graph != "on_the_fly":
        rule = "must be on_the_fly: no graph of distractors is built"
        raise UserError("--field", f"rerank.mds.graph={config.rerank.mds.graph}", rule)
    return config


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
