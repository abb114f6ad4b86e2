"""Local-to-global search as the database grows: the queries of a workdir among distractors.

    python -m experiments.local_to_global.scale --features=WORKDIR --photographs=DIR --work=DIR \
        [--sizes=1614,10000] [--exact_up_to=10000] [--short_list=100]

WORKDIR holds the features of a revisited data set. Distractors are made of photographs of other
places, whose features are extracted with the network and the projection of WORKDIR, once. A
distractor takes two photographs: every feature of the first is moved towards the nearest feature of
the second, by a share drawn for the image, and a tenth to a half of the features are left out. So
what is alike within an image stays alike, as in windows and leaves, and features stay where
features of photographs are; copies of one photograph are no near-duplicates. `hardness` compares
the similarities of the queries to the photographs themselves and to as many distractors.

For each size: seconds and bytes of the inverted file (`search.asmk` of this version), milliseconds
a query by stage, one query at a time, mean average precision of local and local+mds through the
first `search.candidates` images, and exact search beside it up to --exact_up_to. Of local+mds, the
similarities of the short list are computed when it is searched. Descriptors are written to --work
as float16, or as int8 to halve them, for the largest size; smaller ones are its beginning. Writes
NAME.json and .md into --results.
"""

import hashlib
import pathlib
import sys
import time
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import ml_collections
import numpy as np
from absl import flags

import delg_jax
from configs import default
from delg_jax.benchmarks import harness
from delg_jax.cli import arguments, stored_config
from delg_jax.cli.main import run_experiment
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.data.image_files import SUFFIXES
from delg_jax.errors import UserError
from delg_jax.evaluation import revisited
from delg_jax.evaluation.cost import measured
from delg_jax.features import Extracted, extract
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings
from delg_jax.features.storage.rows import StoredRows
from delg_jax.progress import Progress
from delg_jax.reports.tables import markdown
from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings
from delg_jax.search import asmk_store, engines
from delg_jax.search.engine_choice import SearchSettings
from delg_jax.search.pair_graph import PairGraph

_LEAST, _MOST = 0.3, 0.7  # share of the way towards the nearest feature of another photograph
_LEFT_OUT = 0.1, 0.5  # share of the features of an image
_BLOCK = 256  # images made or encoded at a time
_WARM_UP = 2  # queries whose time is not counted


class Images(NamedTuple):
    """Descriptors float16 [N, K, D], and their mask bool [N, K]."""

    descriptors: Any
    mask: Any


def distractor(photographs: Images, number: int) -> tuple[np.ndarray, np.ndarray]:
    """Makes an image of two photographs; see the top of the file.

    Args:
      photographs: at least two.
      number: of the distractor, which decides it.

    Returns:
      Descriptors float16 [K, D], unit norm, and mask bool [K].
    """
    rng = np.random.default_rng([number, 23])
    first, second = rng.choice(len(photographs.mask), 2, replace=False)
    mask = photographs.mask[first].copy()
    features = np.asarray(photographs.descriptors[first][mask], np.float32)
    others = np.asarray(photographs.descriptors[second][photographs.mask[second]], np.float32)
    if len(features) and len(others):
        nearest = others[(features @ others.T).argmax(axis=1)]
        features += rng.uniform(_LEAST, _MOST) * (nearest - features)
        features /= np.maximum(np.linalg.norm(features, axis=1, keepdims=True), 1e-6)
    features = features[rng.random(len(features)) >= rng.uniform(*_LEFT_OUT)]
    mask[:] = np.arange(len(mask)) < len(features)
    made = np.zeros(photographs.descriptors.shape[1:], np.float16)
    made[: len(features)] = features
    return made, mask


def extract_photographs(
    workdir: pathlib.Path, folder: pathlib.Path, count: int, features: int, cache: pathlib.Path
) -> Images:
    """The features of photographs by the network of a workdir; extracted once.

    Args:
      workdir: with a database.
      folder: of the photographs.
      count: evenly spaced photographs that are used, at most.
      features: of an image, K.
      cache: an `.npz` file that keeps them.

    Returns:
      Their features.
    """
    if not cache.is_file():
        paths = sorted(p for p in folder.rglob("*") if p.suffix.lower() in SUFFIXES)
        if len(paths) < 2:
            raise UserError("--photographs", str(folder), "must hold at least two photographs")
        model = delg_jax.load(workdir)
        chosen = np.unique(np.linspace(0, len(paths) - 1, count).astype(int))
        found: list[LocalFeatures] = []
        with Progress("photographs", len(chosen)) as progress:
            for number in chosen:
                local = model.features(paths[number]).local
                assert local is not None  # `model` has a local head: its workdir was searched
                found.append(local)
                progress.advance()
        shape = len(found), features, np.asarray(found[0].descriptors).shape[-1]
        descriptors, mask = np.zeros(shape, np.float16), np.zeros(shape[:2], bool)
        for row, local in enumerate(found):
            own = np.asarray(local.descriptors)[np.asarray(local.mask)][:features]
            descriptors[row, : len(own)], mask[row, : len(own)] = own, True
        cache.parent.mkdir(parents=True, exist_ok=True)
        np.savez(cache, descriptors=descriptors, mask=mask)
    with np.load(cache) as arrays:
        return Images(arrays["descriptors"], arrays["mask"])


def write_database(
    real: Images, photographs: Images, count: int, encoding: str, folder: pathlib.Path
) -> Images:
    """Writes the descriptors of real images and distractors, unless they are there.

    Args:
      real: the first of them.
      photographs: that distractors are made of.
      count: images, N.
      encoding: float16 or int8.
      folder: gets the files, with a name that tells what they are made of.

    Returns:
      The images; rows are read, and decoded, when they are indexed.
    """
    digest = hashlib.blake2b(digest_size=8)
    for part in (*real, *photographs):
        digest.update(np.ascontiguousarray(part))
    place = folder / f"{encoding}_{count}_{digest.hexdigest()}"
    shape = count, *real.descriptors.shape[1:]
    paths = {name: place / f"{name}.npy" for name in ("values", "scales", "mask")}
    if not (place / "whole").is_file():
        place.mkdir(parents=True, exist_ok=True)
        layouts = {
            "values": (shape, encodings.STORED[encoding]),
            "scales": (shape[:2], "float16"),
            "mask": (shape[:2], "bool"),
        }
        files = {
            name: np.lib.format.open_memmap(paths[name], "w+", dtype, of)
            for name, (of, dtype) in layouts.items()
        }
        with Progress("distractors", count) as progress:
            for start in range(0, count, _BLOCK):
                numbers = range(start, min(start + _BLOCK, count))
                made = [
                    (real.descriptors[n], real.mask[n])
                    if n < len(real.mask)
                    else distractor(photographs, n)
                    for n in numbers
                ]
                rows, present = (np.stack(side) for side in zip(*made, strict=True))
                codes = encodings.encode(rows.astype(np.float32), encoding)
                place_of = slice(numbers.start, numbers.stop)
                files["values"][place_of], files["mask"][place_of] = codes.values, present
                if codes.scales is not None:
                    files["scales"][place_of] = codes.scales
                progress.advance(len(numbers))
        for file in files.values():
            file.flush()
        (place / "whole").touch()
    opened = {name: np.load(path, mmap_mode="r") for name, path in paths.items()}

    def read(wanted: slice | np.ndarray) -> np.ndarray:
        scales = opened["scales"][wanted] if encoding == "int8" else None
        codes = encodings.Codes(opened["values"][wanted], scales)
        return encodings.decode(codes, encoding).astype(np.float16)

    return Images(StoredRows(read, shape, np.float16), opened["mask"])


def first_images(images: Images, count: int) -> Images:
    """The first of some images, which stay where they are."""
    rows, mask = images.descriptors, images.mask

    def read(wanted: slice | np.ndarray) -> np.ndarray:
        return rows[wanted]

    return Images(StoredRows(read, (count, *rows.shape[1:]), rows.dtype), mask[:count])


def hardness(queries: Images, photographs: Images, search: SearchSettings) -> dict:
    """Mean similarity of the queries to their nearest tenth of photographs, and of distractors."""
    count = len(photographs.mask)
    made = [distractor(photographs, number) for number in range(count)]
    found = {}
    for name, images in (
        ("photographs", photographs),
        ("distractors", Images(*(np.stack(side) for side in zip(*made, strict=True)))),
    ):
        similarities = engines.exact(*images, search.kernel)(*queries)
        found[name] = float(np.sort(similarities, axis=1)[:, -max(1, count // 10) :].mean())
    return found


def measure(
    images: Images,
    queries: Images,
    truth: Sequence[dict],
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    with_exact: bool,
) -> dict[str, Any]:
    """Builds the index of a database and searches it, one query at a time.

    Args:
      images: the database; those of the ground truth first.
      queries: Q of them.
      truth: ground truth of the queries.
      config: the whole tree; its `search` and `rerank.mds` are used.
      folder: gets the index.
      with_exact: whether to search exactly, too.

    Returns:
      `images`; `build_seconds`, `open_seconds`, `bytes` of the index and `entries`; `milliseconds`
      a query and `megabytes` by stage; and `map` by method and protocol.
    """
    search = SearchSettings.of(config.search)
    settings = mds_settings(config, len(images.mask))
    source = asmk_store.Source(*images, f"{len(images.mask)} images in {folder.name}")
    with measured() as built:
        asmk_store.load_or_build(folder, search.asmk, source)
    start = time.perf_counter()
    index = asmk_store.load(folder)
    result: dict[str, Any] = {
        "images": len(images.mask),
        "build_seconds": built.seconds,
        "open_seconds": time.perf_counter() - start,
        "bytes": sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()),
        "entries": int(sum(len(part.images) for part in index.parts)),
        "milliseconds": {},
        "map": {},
    }
    exact = engines.exact(*images, search.kernel, search.local_block, search.idf_images)
    first = engines.AsmkSearch(index, search.scoring)
    count = min(search.candidates, len(images.mask))

    def timed(stage: str, call: Callable[[int], Any]) -> list[Any]:
        for row in range(min(_WARM_UP, len(queries.mask))):
            call(row)
        found = []
        with measured() as cost:
            for row in range(len(queries.mask)):
                found.append(call(row))
        result["milliseconds"][stage] = 1000 * cost.seconds / max(len(found), 1)
        result.setdefault("megabytes", {})[stage] = cost.megabytes
        return found

    def one(row: int) -> tuple[np.ndarray, np.ndarray]:
        return queries.descriptors[row : row + 1], queries.mask[row : row + 1]

    found = timed("candidates", lambda row: np.sort(first.top(*one(row), count)[1][0]))
    scores = timed("scores", lambda row: exact.among(found[row], *one(row))[0])
    orders = [np.argsort(-row, kind="stable") for row in scores]
    ranks = np.stack([row[order] for row, order in zip(found, orders, strict=True)])
    similarities = np.stack([row[order] for row, order in zip(scores, orders, strict=True)])
    result["map"]["local"] = _precision(ranks, truth)
    if settings is not None:
        kept = search.graph_features or images.descriptors.shape[1]
        few = Images(_columns(images.descriptors, kept), images.mask[:, :kept])
        graph = PairGraph(engines.exact(*few, search.kernel, search.local_block, search.idf_images))
        new = timed("mds", lambda row: _list_scores(ranks, similarities, graph, settings, row))
        result["map"]["local+mds"] = _precision(_reordered(ranks, new), truth)
    if with_exact:
        tops = timed("exact", lambda row: exact.top(*one(row), count)[1][0])
        result["map"]["exact"] = _precision(np.stack(tops), truth)
        same = [len(np.intersect1d(a[:50], b)) for a, b in zip(tops, found, strict=True)]
        result["found_of_first_50"] = float(np.mean(same) / min(50, count))
    return result


def _list_scores(
    ranks: np.ndarray, similarities: np.ndarray, graph: PairGraph, settings: MdsSettings, row: int
) -> np.ndarray:
    """Scores [M] of the short list of one query."""
    part = slice(row, row + 1)
    return mds.list_scores(ranks[part], similarities[part], graph, settings)[0]


def _reordered(ranks: np.ndarray, scores: Sequence[np.ndarray]) -> np.ndarray:
    """Rankings [Q, N] whose first images are sorted by scores [M] of each query."""
    reranked = ranks.copy()
    for row, new in enumerate(scores):
        reranked[row, : len(new)] = ranks[row, np.argsort(-new, kind="stable")]
    return reranked


def mds_settings(config: ml_collections.ConfigDict, images: int) -> MdsSettings | None:
    """`config.rerank.mds` for one query at a time; None without a short list."""
    fields = dict(config.rerank.mds)
    short_list = min(fields.pop("short_list"), config.search.candidates, images)
    fields |= {"query_block": 1, "neighbours": min(fields["neighbours"], short_list - 1)}
    return MdsSettings(short_list=short_list, **fields) if short_list > 1 else None


def _columns(rows: Any, count: int) -> StoredRows:
    """The first features of each row."""
    shape = len(rows), count, rows.shape[2]
    return StoredRows(lambda wanted: rows[wanted][:, :count], shape, rows.dtype)


def _precision(ranks: np.ndarray, truth: Sequence[dict]) -> dict[str, float]:
    """Mean average precision in percent, by protocol."""
    metrics = revisited.by_protocol({"all": ranks}, truth, (1,)).metrics
    return {name: metrics[name]["map"] for name in PROTOCOLS}


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Returns the rows in Markdown."""
    stages = list(dict.fromkeys(stage for row in rows for stage in row["milliseconds"]))
    methods = list(dict.fromkeys(method for row in rows for method in row["map"]))
    header = ["images", "build s", "open s", "GB"]
    header += [f"{stage} ms" for stage in stages] + [f"{method} M / H" for method in methods]
    lines = []
    for row in rows:
        cells = [f"{row['images']:,}", f"{row['build_seconds']:.0f}", f"{row['open_seconds']:.2f}"]
        cells.append(f"{row['bytes'] / 1e9:.3f}")
        spent = [row["milliseconds"].get(stage) for stage in stages]
        cells += ["" if value is None else f"{value:.0f}" for value in spent]
        for method in methods:
            found = row["map"].get(method)
            cells.append("" if found is None else f"{found['medium']:.1f} / {found['hard']:.1f}")
        lines.append(cells)
    return markdown(header, lines)


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
    flags.DEFINE_integer("max_features", 300, "Features of an image.", 1, flag_values=values)
    text = "Features of an image that is compared with another of the short list."
    flags.DEFINE_integer("graph_features", 100, text, 1, flag_values=values)
    text = "Images found by the inverted file, then scored."
    flags.DEFINE_integer("candidates", 400, text, 1, flag_values=values)
    text = "Images re-ranked by local+mds; 0 for none."
    flags.DEFINE_integer("short_list", 100, text, 0, flag_values=values)
    text = "How descriptors are written."
    flags.DEFINE_enum("encoding", "float16", ["float16", "int8"], text, flag_values=values)
    text = "Further fields of config.search.asmk, as words=4096."
    flags.DEFINE_multi_string("asmk", [], text, flag_values=values)
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
    extracted = extract(config, root)
    real, queries = _read(extracted, values.max_features)
    if sizes[0] < len(real.mask):
        rule = f"must hold the images of the ground truth, at least {len(real.mask)}"
        raise UserError("--sizes", sizes[0], rule)
    used = values.photographs_used
    cache = work / f"photographs_{used}_{real.mask.shape[1]}.npz"
    photographs = extract_photographs(
        root, pathlib.Path(values.photographs), used, real.mask.shape[1], cache
    )
    compared = hardness(queries, photographs, SearchSettings.of(config.search))
    database = write_database(real, photographs, sizes[-1], values.encoding, work / "database")
    rows = []
    for size in sizes:
        some = first_images(database, size)
        folder = work / f"asmk_{size}"
        with_exact = size <= values.exact_up_to
        truth = extracted.data.ground_truth
        rows.append(measure(some, queries, truth, config, folder, with_exact))
        content = {"rows": rows, "hardness": compared, "photographs": len(photographs.mask)}
        content |= {"search": config.search.to_dict(), "features": list(real.mask.shape)}
        text = f"{table(rows)}\n\nMean similarity to the nearest tenth: photographs "
        text += f"{compared['photographs']:.4f}, distractors {compared['distractors']:.4f}.\n"
        harness.write_result(values.results, values.name, content, text)
    print(text, end="")


def _config(root: pathlib.Path, values: flags.FlagValues) -> ml_collections.ConfigDict:
    """The configuration of a workdir with the flags."""
    config = stored_config.read(root)
    with config.unlocked():
        config.search.candidates = values.candidates
        config.search.graph_features = values.graph_features
        config.rerank.mds.short_list = values.short_list
        known = default.get_config().search.asmk
        for text in values.asmk:
            name, _, value = text.partition("=")
            if name not in known:
                raise UserError("--asmk", text, f"must be FIELD=VALUE, FIELD of {', '.join(known)}")
            kind = type(known[name])
            config.search.asmk[name] = value == "True" if kind is bool else kind(value)
    return config


def _read(extracted: Extracted, count: int) -> tuple[Images, Images]:
    """The strongest features of the database and of the queries."""
    sides = []
    for store in (extracted.database, extracted.queries):
        local = store.local_features(count)
        sides.append(Images(np.asarray(local.descriptors), np.asarray(local.mask)))
    return sides[0], sides[1]


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
