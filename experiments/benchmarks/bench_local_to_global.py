r"""What a query of local-to-global retrieval costs as the database grows.

    python -m experiments.benchmarks.bench_local_to_global

Searches synthetic databases of --images images, 300 random unit vectors of 128 dimensions in each,
with one query at a time: exactly (halves, and packed signs), and by constrained approximate nearest
neighbours at --cann_images images, whose index is large. Then re-ranks short lists of 400 and 701
images by similarity embeddings, on a similarity graph of as many images. Databases serve the rows
of one block of images again and again, so that 100,000 images need no 8 GB; nothing but the disk
that they would be read from is spared. A search grows until a query would take more than --limit
seconds. Writes bench_local_to_global.json, .md and .svg into --results.
"""

import dataclasses
import functools
import math
import pathlib
import statistics
import sys
from collections.abc import Callable, Sequence

import jax
import jax.numpy as jnp
import numpy as np
from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation.cost import Cost, measured
from delg_jax.features.storage.stored_rows import StoredRows
from delg_jax.reports.line_chart import line_chart
from delg_jax.reports.tables import markdown
from delg_jax.rerank import mds
from delg_jax.rerank.mds import MdsSettings
from delg_jax.search import binary, cann, engines
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.lsh_grids import GridSettings
from experiments.benchmarks import bench_verification

_FEATURES, _DIM, _BASE, _BLOCK = 300, 128, 1024, 32
_NEIGHBOURS = 1000  # of an image in the graph, as config.search.graph_neighbours
_KERNEL = SimilarityKernel("threshold", 0.6)
_ROUNDS, _ENOUGH = 5, 2.0  # a query is repeated so often, or until so many seconds are spent
_MILLION = 1_000_000
SIZES = {
    "full": {"images": (1_000, 3_000, 10_000, 30_000, 100_000), "cann_images": (30, 100, 300)},
    "quick": {"images": (20, 40, 80), "cann_images": (5, 10)},
}


@dataclasses.dataclass(frozen=True)
class Prepared:
    """One query, ready to be timed.

    Attributes:
      warm_up: compiles what `query` needs.
      query: what is timed.
      megabytes: of the database, or of the index in its place.
    """

    warm_up: Callable[[], object]
    query: Callable[[], object]
    megabytes: float


def repeated(block: np.ndarray, count: int) -> StoredRows:
    """`count` rows, which are those of `block` [n, ...] again and again."""

    def read(rows: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return block[numbers % len(block)]

    return StoredRows(read, (count, *block.shape[1:]), block.dtype)


@functools.cache
def _images() -> np.ndarray:
    """Unit vectors float16 [n, K, D], of one block of images."""
    vectors = np.random.default_rng(0).standard_normal((_BASE, _FEATURES, _DIM), np.float32)
    return (vectors / np.linalg.norm(vectors, axis=2, keepdims=True)).astype(np.float16)


def _exact(images: int, packed: bool) -> Prepared:
    """Exact search of one image, of the database itself."""
    block = np.asarray(binary.binarize(_images())) if packed else _images()
    query, present = block[:1], np.ones((_BASE, _FEATURES), bool)

    def search(count: int) -> np.ndarray:
        database, mask = repeated(block, count), repeated(present, count)
        return engines.exact(database, mask, _KERNEL, _BLOCK)(query, present[:1])

    megabytes = images * block[0].nbytes / 1e6
    warm_up = functools.partial(search, min(images, _BLOCK * jax.local_device_count()))
    return Prepared(warm_up, functools.partial(search, images), megabytes)


def _cann(images: int) -> Prepared:
    """Search of one image by the cells of an index, which is built here."""
    block, present = _images(), np.ones((_BASE, _FEATURES), bool)
    index = cann.build(repeated(block, images), repeated(present, images), GridSettings())
    search = functools.partial(engines.cann(index), block[:1].astype(np.float32), present[:1])
    return Prepared(search, search, (index.keys.nbytes + index.images.nbytes) / 1e6)


def _mds(images: int, short_list: int) -> Prepared:
    """Embedding and scores of one short list; `megabytes` are those of the graph."""
    kept, count = min(_NEIGHBOURS, images), min(short_list, images)
    descending = -np.sort(-np.random.default_rng(0).random((1, kept), np.float32), axis=1)

    def neighbours(rows: slice | np.ndarray) -> np.ndarray:
        numbers = np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows
        return ((numbers[:, None] + np.arange(kept)[None, :]) % images).astype(np.int32)

    graph = SimilarityGraph(
        StoredRows(neighbours, (images, kept), np.int32), repeated(descending, images)
    )
    ranking, found = np.arange(images)[None, :], np.linspace(1.0, 0.0, images)[None, :]
    settings = MdsSettings(short_list=count)
    query = functools.partial(mds.list_scores, ranking, found, graph, settings)
    return Prepared(query, query, 8 * images * kept / 1e6)


# Name in the table, which sizes it takes, and what prepares a query
ENGINES: dict[str, tuple[str, Callable[[int], Prepared]]] = {
    "exact, float16": ("images", functools.partial(_exact, packed=False)),
    "exact, one bit": ("images", functools.partial(_exact, packed=True)),
    "cann": ("cann_images", _cann),
    **{
        f"mds of {count}": ("images", functools.partial(_mds, short_list=count))
        for count in (400, 701)
    },
}


def time_query(prepared: Prepared) -> tuple[float, float | None]:
    """Median seconds of a query after a warm-up, and the megabytes it takes at its peak."""
    prepared.warm_up()
    costs: list[Cost] = []
    while len(costs) < _ROUNDS and sum(cost.seconds for cost in costs) < _ENOUGH:
        with measured() as cost:
            jax.block_until_ready(jnp.asarray(prepared.query()))
        costs.append(cost)
    megabytes = [cost.megabytes for cost in costs if cost.megabytes is not None]
    return statistics.median(cost.seconds for cost in costs), max(megabytes, default=None)


def grow(
    prepare: Callable[[int], Prepared], sizes: Sequence[int], limit: float
) -> list[dict[str, float | None]]:
    """A row for each size, ascending; no more than the expected seconds once they pass `limit`.

    Args:
      prepare: makes a query on a database of a size.
      sizes: images.
      limit: seconds of a query.

    Returns:
      Rows with `images`, and `milliseconds`, `working_megabytes` and `stored_megabytes` or, of a
      size that was not tried, `expected_milliseconds`.
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
    """Exponent e of time ~ images^e, fitted to the largest sizes; None if there is but one."""
    points = [(row["images"], row["milliseconds"]) for row in rows if "milliseconds" in row]
    if len(points) < 2:
        return None
    return bench_verification.exponent(points)


def table(found: dict[str, list[dict[str, float | None]]], limit: float) -> str:
    """Every row, and the exponents."""
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
            f"No query was run that would take more than {limit:g} s.",
            markdown(["time ~ images^e, largest sizes", "e"], exponents),
        ]
    )


def arithmetic(
    found: dict[str, list[dict[str, float | None]]], graph_images: int, graph_seconds: float
) -> list[str]:
    """What follows for a million images, by proportion; nothing of it was run."""
    lines = ["A million images, by arithmetic alone, from the numbers above:", ""]
    for name, rows in found.items():
        run = [row for row in rows if "milliseconds" in row]
        if name.startswith("exact") and run:
            seconds = run[-1]["milliseconds"] / 1000
            total = seconds * _MILLION / run[-1]["images"]
            lines.append(
                f"- {name}: {seconds:.2f} s x {_MILLION:,} / {run[-1]['images']:,} "
                f"= {total:,.0f} s a query"
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
    text = "quick for tests; --images and --cann_images win over it."
    flags.DEFINE_enum("size", "full", list(SIZES), text, flag_values=values)
    for name, text in (("images", "Images of databases."), ("cann_images", "The same for cann.")):
        flags.DEFINE_multi_integer(name, None, text, 1, flag_values=values)
    flags.DEFINE_float("limit", 30.0, "Seconds of a query.", 0.0, flag_values=values)
    flags.DEFINE_integer("graph_images", 1_614, "Of a graph once built.", 1, flag_values=values)
    text = "That the graph took; the default is the README's."
    flags.DEFINE_float("graph_seconds", 270.0, text, 0.0, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Of table and plot.")


def run(values: flags.FlagValues) -> None:
    """Measures every engine, writes table and plot, and prints the table."""
    sizes = {name: values[name].value or size for name, size in SIZES[values.size].items()}
    found = {
        # What does not grow with the database has no size at which to stop
        name: grow(prepare, sizes[which], math.inf if name.startswith("mds") else values.limit)
        for name, (which, prepare) in ENGINES.items()
    }
    results, name = pathlib.Path(values.results), "bench_local_to_global"
    sums = arithmetic(found, values.graph_images, values.graph_seconds)
    content = {
        "features": _FEATURES,
        "dimension": _DIM,
        "limit_seconds": values.limit,
        "engines": found,
        "exponents": {engine: exponent(rows) for engine, rows in found.items()},
        "million": sums[2:],
    }
    workdir.write_json(results / f"{name}.json", content)
    text = table(found, values.limit) + "\n\n" + "\n".join(sums) + "\n"
    workdir.write_text(results / f"{name}.md", text)
    curves = {
        engine: [(row["images"], row["milliseconds"]) for row in rows if "milliseconds" in row]
        for engine, rows in found.items()
    }
    plot = line_chart("One query", "database images", "milliseconds", curves, "log")
    workdir.write_text(results / f"{name}.svg", plot)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
