"""The overlap of approximate with exact local search, and its cost.

    python -m experiments.local_to_global.cann_overlap --features=WORKDIR

Compares the first images of the engines cann and ivf, at several settings, with those of the exact
engine with the same kernel, on the features that `delg extract` wrote into WORKDIR or, without
--features, on random places. Times are of all queries at once, after a warm-up. Writes NAME.json,
.md and .svg into --results.
"""

import pathlib
import sys
from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.benchmarks.cases.local import overlap
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.evaluation.cost import measured
from delg_jax.features.store import FeatureStore
from delg_jax.reports import tables
from delg_jax.reports.charts import line_chart
from delg_jax.search import SimilarityKernel, cann, engines, ivf
from delg_jax.search.cann import GridSettings
from delg_jax.search.engines import LocalSearch
from delg_jax.search.ivf import IvfSettings

KERNEL = SimilarityKernel("cann")
COARSE = 2.0  # c that gives few radii
GRIDS = (  # those of the original, then fewer radii, fewer axes and wider cells
    GridSettings(grids=1),
    GridSettings(grids=5),
    GridSettings(grids=5, approximation=COARSE),
    *(
        GridSettings(grids=grids, approximation=COARSE, axes=axes, width=width / COARSE)
        for axes, width in ((8, 2.0), (12, 3.0), (16, 4.0))
        for grids in (1, 5, 20)
    ),
)
IVF = (  # settings and probes; the first three without k-means
    *((IvfSettings(2000, rounds=0), probes) for probes in (16, 32, 64)),
    *((IvfSettings(1000), probes) for probes in (4, 12, 24)),
    *((IvfSettings(2000), probes) for probes in (8, 16, 32, 48)),
    *((IvfSettings(4000), probes) for probes in (16, 32, 64)),
)


class Features(NamedTuple):
    """Descriptors and masks of a database [N, K, D] and its queries [Q, Kq, D]."""

    database: np.ndarray
    mask: np.ndarray
    queries: np.ndarray
    query_mask: np.ndarray


def plant(seed: int = 0, images: int = 240, features: int = 40, dim: int = 32) -> Features:
    """Draws eight images of each place; features are those of the place with noise, or random."""
    rng = np.random.default_rng(seed)
    places = rng.standard_normal((images // 8, features, dim))
    of_place = np.arange(images) % len(places)
    database = places[of_place] + 0.5 * rng.standard_normal((images, features, dim))
    random = rng.random((images, features)) < 0.5
    database[random] = rng.standard_normal((int(random.sum()), dim))
    queries = places[:10] + 0.5 * rng.standard_normal((len(places[:10]), features, dim))
    normalized = [x / np.linalg.norm(x, axis=2, keepdims=True) for x in (database, queries)]
    database, queries = (x.astype(np.float16) for x in normalized)
    return Features(
        database, np.ones(database.shape[:2], bool), queries, np.ones(queries.shape[:2], bool)
    )


def read(folder: pathlib.Path, features: int) -> Features:
    """Reads the strongest local features of a workdir."""
    stores = [FeatureStore(folder / "features" / name) for name in ("database", "queries")]
    database, queries = (store.local_features(features) for store in stores)
    return Features(database.descriptors, database.mask, queries.descriptors, queries.mask)


def _timed(search: LocalSearch, features: Features) -> tuple[np.ndarray, float]:
    """Similarities, and milliseconds per query."""
    found: list[np.ndarray] = []
    (timing,) = harness.time_in_turn(
        [lambda: found.append(search(features.queries, features.query_mask))], repeats=1
    )
    return found[-1], 1000 * timing.median / len(found[-1])


def measure(
    features: Features,
    top: int,
    grids: tuple[GridSettings, ...] = GRIDS,
    ivf_settings: tuple[tuple[IvfSettings, int], ...] = IVF,
) -> list[dict[str, object]]:
    """Returns a row for each engine and setting, the exact engine first."""
    database, mask = features.database, features.mask
    exact, milliseconds = _timed(engines.exact(database, mask, KERNEL), features)
    rows = [_row("exact", "", 1.0, milliseconds, database.nbytes, 0.0)]

    def add(engine: str, text: str, build: Callable, search: Callable) -> None:
        with measured() as cost:
            index = build()
        found, milliseconds = _timed(search(index), features)
        arrays = [field for field in vars(index).values() if isinstance(field, np.ndarray)]
        size = sum(array.nbytes for array in arrays)
        shared = overlap(found, exact, top)
        rows.append(_row(engine, text, shared, milliseconds, size, cost.seconds))

    for settings in grids:
        radii, axes = len(settings.radii()), settings.axes or database.shape[2]
        text = f"{settings.grids} grids, {radii} radii, {axes} axes, width {settings.width:g}"
        add("cann", text, lambda s=settings: cann.build(database, mask, s), engines.CannSearch)
    for settings, probes in ivf_settings:
        add(
            "ivf",
            f"{settings.count} cells, {settings.rounds} rounds, {probes} probes",
            lambda s=settings: ivf.build(database, mask, s),
            lambda index, p=probes: engines.IvfSearch(index, KERNEL, p),
        )
    return rows


def _row(engine: str, settings: str, shared: float, milliseconds: float, size: int, build: float):
    return {
        "engine": engine,
        "settings": settings,
        "overlap": shared,
        "milliseconds": milliseconds,
        "bytes": size,
        "build_seconds": build,
    }


def table(rows: list[dict[str, object]], top: int) -> str:
    """Returns the rows in Markdown."""
    header = ("engine", "settings", f"of the top {top}", "ms/query", "times as fast", "MB")
    lines = [
        (
            row["engine"],
            row["settings"],
            f"{row['overlap']:.1%}",
            f"{row['milliseconds']:.1f}",
            f"{rows[0]['milliseconds'] / row['milliseconds']:.1f}",
            f"{row['bytes'] / 1e6:.0f}",
        )
        for row in rows
    ]
    return tables.markdown(header, lines)


def plot(rows: list[dict[str, object]], top: int) -> str:
    """Returns an SVG of overlap over time."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for row in rows:
        point = row["milliseconds"], 100.0 * row["overlap"]
        if point[1]:
            curves.setdefault(row["engine"], []).append(point)
    curves = {engine: sorted(points) for engine, points in curves.items()}
    return line_chart(
        "Approximate search", "ms a query", f"% of the first {top} found", curves, "log"
    )


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    text = "Workdir with extracted features; without it, random ones."
    arguments.define_path(values, "features", None, text)
    flags.DEFINE_integer(
        "max_features", 200, "Strongest features of an image that are compared.", flag_values=values
    )
    flags.DEFINE_integer("top", 50, "First images that are compared.", 1, flag_values=values)
    flags.DEFINE_string("name", "cann_overlap", "Name of the results.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Measures every setting and prints the table."""
    features = plant()
    if values.features:
        features = read(pathlib.Path(values.features), values.max_features)
    rows = measure(features, values.top)
    shape = {"database": list(features.database.shape), "queries": list(features.queries.shape)}
    content = {**shape, "top": values.top, "rows": rows}
    text = table(rows, values.top) + "\n"
    chart = plot(rows, values.top)
    harness.write_result(values.results, values.name, content, text, chart)
    print(text, end="")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
