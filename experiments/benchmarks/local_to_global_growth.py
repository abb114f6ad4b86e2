r"""What a query of local-to-global retrieval costs as the database grows.

    python -m experiments.benchmarks.local_to_global_growth

Searches synthetic databases of --images images, each with 300 random unit vectors of 128
dimensions, one query at a time: exactly (float16, and packed signs), and by constrained approximate
nearest neighbours at --cann_images images, because that index is large. Then re-ranks short lists
by similarity embeddings (400 and 701 images) and by profiles (700), on a similarity graph of as
many images; the rows of the graph are read in this time. A database
repeats one block of images, so that 100,000 images need no 8 GB of memory; only reading from disk
is not measured. Sizes at which a query would take more than --limit seconds are not run. Writes
local_to_global_growth.json, .md and .svg into --results.
"""

import dataclasses
import functools
import math
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation.cost import measured
from delg_jax.features.storage.rows import StoredRows
from delg_jax.reports.charts import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings
from delg_jax.search import cann, descriptor_similarity, engines
from delg_jax.search.cann import GridSettings
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import SimilarityKernel
from experiments.local_to_global.choice import PROFILE

_FEATURES, _DIM = 300, 128  # of an image
_BASE = 1024  # images that a database repeats
_BLOCK = 32  # images compared at a time
_NEIGHBOURS = 1000  # of an image in the graph, as config.search.graph_neighbours
_KERNEL = SimilarityKernel("threshold", 0.6)
_REPEATS = 5
_ENOUGH = 2.0  # seconds after which a query is not repeated
_MILLION = 1_000_000
SIZES = {
    "full": {"images": (1_000, 3_000, 10_000, 30_000, 100_000), "cann_images": (30, 100, 300)},
    "quick": {"images": (20, 40, 80), "cann_images": (5, 10)},
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A query, ready to be timed.

    Attributes:
      warm_up: compiles what `query` needs.
      query: runs the query.
      megabytes: of the database, index or graph.
    """

    warm_up: Callable[[], object]
    query: Callable[[], object]
    megabytes: float


def repeated(block: np.ndarray, count: int) -> StoredRows:
    """Returns `count` rows, which repeat those of `block` [n, ...]."""

    def read(rows: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return block[numbers % len(block)]

    return StoredRows(read, (count, *block.shape[1:]), block.dtype)


@functools.cache
def _images() -> np.ndarray:
    """Unit vectors float16 [N, K, D] of the images that databases repeat."""
    vectors = np.random.default_rng(0).standard_normal((_BASE, _FEATURES, _DIM), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float16)


def _exact(images: int, packed: bool) -> Prepared:
    """Exact search for an image of the database."""
    block = np.asarray(descriptor_similarity.binarize(_images())) if packed else _images()
    query, present = block[:1], np.ones((_BASE, _FEATURES), bool)

    def search(count: int) -> np.ndarray:
        database, mask = repeated(block, count), repeated(present, count)
        return engines.exact(database, mask, _KERNEL, _BLOCK)(query, present[:1])

    megabytes = images * block[0].nbytes / 1e6
    warm_up = functools.partial(search, min(images, _BLOCK * jax.local_device_count()))
    return Prepared(warm_up, functools.partial(search, images), megabytes)


def _cann(images: int) -> Prepared:
    """Approximate search for an image of the database, on an index that is built here."""
    block, present = _images(), np.ones((_BASE, _FEATURES), bool)
    index = cann.build(repeated(block, images), repeated(present, images), GridSettings())
    search = functools.partial(engines.CannSearch(index), block[:1].astype(np.float32), present[:1])
    return Prepared(search, search, (index.keys.nbytes + index.images.nbytes) / 1e6)


def _mds(images: int, chosen: MdsSettings) -> Prepared:
    """Vectors and scores of a short list; `megabytes` are those of the graph."""
    kept = min(_NEIGHBOURS, images)
    settings = dataclasses.replace(chosen, short_list=min(chosen.short_list, images))
    descending = -np.sort(-np.random.default_rng(0).random((1, kept), np.float32), axis=1)

    def neighbours(rows: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return ((numbers[:, None] + np.arange(kept)[None, :]) % images).astype(np.int32)

    graph = SimilarityGraph(
        StoredRows(neighbours, (images, kept), np.int32), repeated(descending, images)
    )
    ranking, found = np.arange(images)[None, :], np.linspace(1.0, 0.0, images)[None, :]
    query = functools.partial(mds.list_scores, ranking, found, graph, settings)
    return Prepared(query, query, 8 * images * kept / 1e6)


# By name in the table: the flag with its sizes, and what prepares a query
ENGINES: dict[str, tuple[str, Callable[[int], Prepared]]] = {
    "exact, float16": ("images", functools.partial(_exact, packed=False)),
    "exact, one bit": ("images", functools.partial(_exact, packed=True)),
    "cann": ("cann_images", _cann),
    **{
        f"mds of {count}": ("images", functools.partial(_mds, chosen=MdsSettings(short_list=count)))
        for count in (400, 701)
    },
    "mds of 700, profile": ("images", functools.partial(_mds, chosen=PROFILE)),
}


def time_query(prepared: Prepared) -> tuple[float, float | None]:
    """Returns the median seconds of a query after a warm-up, and its peak memory in megabytes."""
    peaks: list[float] = []

    def query() -> None:
        with measured() as cost:
            jax.block_until_ready(jnp.asarray(prepared.query()))
        if cost.megabytes is not None:
            peaks.append(cost.megabytes)

    (timing,) = harness.time_in_turn([query], _REPEATS, [prepared.warm_up], _ENOUGH)
    return timing.median, max(peaks, default=None)


def grow(
    prepare: Callable[[int], Prepared], sizes: Sequence[int], limit: float
) -> list[dict[str, float | None]]:
    """Times a query at each size, unless it is expected to take longer than `limit`.

    Args:
      prepare: makes a query on a database of a size.
      sizes: numbers of images.
      limit: seconds of a query.

    Returns:
      A row for each size, ascending: `images`, and `milliseconds`, `working_megabytes` and
      `stored_megabytes` or, for a size that was not run, `expected_milliseconds`.
    """
    rows: list[dict[str, float | None]] = []
    for images in sorted(sizes):
        last = rows[-1] if rows else None
        if last is not None:
            before = last.get("milliseconds", last.get("expected_milliseconds"))
            expected = before * images / last["images"]
            if expected > 1000 * limit:
                rows.append({"images": images, "expected_milliseconds": expected})
                continue
        prepared = prepare(images)
        seconds, megabytes = time_query(prepared)
        rows.append(
            {
                "images": images,
                "milliseconds": 1000 * seconds,
                "working_megabytes": megabytes,
                "stored_megabytes": prepared.megabytes,
            }
        )
    return rows


def exponent(rows: Sequence[dict[str, float | None]]) -> float | None:
    """Returns exponent e of time ~ images^e for the largest sizes; None with a single size."""
    points = [(row["images"], row["milliseconds"]) for row in rows if "milliseconds" in row]
    if len(points) < 2:
        return None
    return harness.growth_exponent(points)


def table(found: dict[str, list[dict[str, float | None]]], limit: float) -> str:
    """Returns all rows and the exponents, in Markdown."""
    cells = []
    for name, rows in found.items():
        for row in rows:
            if "milliseconds" in row:
                values = (row["working_megabytes"], row["stored_megabytes"])
                shown = ["-" if value is None else f"{value:,.1f}" for value in values]
                cells.append([name, f"{row['images']:,}", f"{row['milliseconds']:,.1f}", *shown])
            else:
                text = f"not run: about {row['expected_milliseconds'] / 1000:,.0f} s"
                cells.append([name, f"{row['images']:,}", text, "-", "-"])
    header = ["one query", "images", "ms", "MB while it runs", "MB of database, index or graph"]
    fits = [(name, exponent(rows)) for name, rows in found.items()]
    exponents = [[name, "-" if fit is None else f"{fit:.2f}"] for name, fit in fits]
    return "\n\n".join(
        [
            markdown(header, cells),
            f"Queries expected to take more than {limit:g} s were not run.",
            markdown(["time ~ images^e, largest sizes", "e"], exponents),
        ]
    )


def arithmetic(
    found: dict[str, list[dict[str, float | None]]], graph_images: int, graph_seconds: float
) -> list[str]:
    """Returns lines that extrapolate to a million images; none of it was run."""
    lines = ["A million images, extrapolated from the numbers above:", ""]
    for name, rows in found.items():
        run = [row for row in rows if "milliseconds" in row]
        if name.startswith("exact") and run:
            seconds = run[-1]["milliseconds"] / 1000
            total = seconds * _MILLION / run[-1]["images"]
            lines.append(
                f"- {name}: {seconds:.2f} s x {_MILLION:,} / {run[-1]['images']:,} "
                f"= {total:,.0f} s per query"
            )
    total = graph_seconds * (_MILLION / graph_images) ** 2
    return [
        *lines,
        f"- similarity graph: {graph_seconds:,.0f} s x ({_MILLION:,} / {graph_images:,})^2 "
        f"= {total / 86_400:,.0f} days",
    ]


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    text = "Sizes of databases; --images and --cann_images override it."
    flags.DEFINE_enum("size", "full", list(SIZES), text, flag_values=values)
    for name, text in (
        ("images", "Images of a database; may be repeated."),
        ("cann_images", "The same for cann."),
    ):
        flags.DEFINE_multi_integer(name, None, text, 1, flag_values=values)
    flags.DEFINE_float("limit", 30.0, "Most seconds of a query.", 0.0, flag_values=values)
    flags.DEFINE_integer(
        "graph_images", 1_614, "Images of a graph that was built.", 1, flag_values=values
    )
    text = "Seconds that building it took; the default is from docs/results.md."
    flags.DEFINE_float("graph_seconds", 270.0, text, 0.0, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Times every engine and prints the table."""
    sizes = {name: values[name].value or size for name, size in SIZES[values.size].items()}
    found = {
        # The time of mds depends on the short list, not on the database
        name: grow(prepare, sizes[which], math.inf if name.startswith("mds") else values.limit)
        for name, (which, prepare) in ENGINES.items()
    }
    sums = arithmetic(found, values.graph_images, values.graph_seconds)
    content = {
        "features": _FEATURES,
        "dimension": _DIM,
        "limit_seconds": values.limit,
        "engines": found,
        "exponents": {engine: exponent(rows) for engine, rows in found.items()},
        "million": sums[2:],
    }
    text = table(found, values.limit) + "\n\n" + "\n".join(sums) + "\n"
    curves = {
        engine: [(row["images"], row["milliseconds"]) for row in rows if "milliseconds" in row]
        for engine, rows in found.items()
    }
    plot = line_chart("One query", "database images", "milliseconds", curves, "log")
    harness.write_result(values.results, "local_to_global_growth", content, text, plot)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
