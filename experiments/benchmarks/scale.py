"""The plan for a billion local features (R1M): bytes, time and devices, from measured rates.

    python -m experiments.benchmarks.scale

Arithmetic alone: the rates are those of bench_extract_r50_7.json, bench_local.json,
bench_binary.json, bench_global_one.json and bench_store.json in --results, and grow in proportion
to images and features, as bench_growth.json shows. Writes scale.json and scale.md there.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.reports.tables import markdown

IMAGES, FEATURES, QUERY_FEATURES = 1_005_994, 1000, 1000  # ROxford and R1M
GLOBAL_DIM, LOCAL_DIM = 2048, 128
QUERIES = 70
_PLACE = 16  # bytes of a feature beside its descriptor: location, scale, score
_DESCRIPTOR = {"float16": 2 * LOCAL_DIM, "int8": LOCAL_DIM + 4, "sign": LOCAL_DIM // 8}
_SOURCES = ("extract_r50_7", "local", "binary", "global_one", "store")


@dataclasses.dataclass(frozen=True)
class Rates:
    """What was measured on one machine, a second.

    Attributes:
      images: extracted.
      floats: pairs of a query feature and a database feature compared as floats.
      bits: the same as signs.
      cells: how many times the pairs of exact search the engine ivf gets through.
      global_images: compared with one query.
      read: bytes of a store.
      largest: images of the largest store that was read.
      machine: that all but the store was measured on.
    """

    images: float
    floats: float
    bits: float
    cells: float
    global_images: float
    read: float
    largest: int
    machine: str


def read_rates(results: pathlib.Path) -> Rates:
    """The rates in the files of benchmarks; a UserError names one that is missing."""
    found = {}
    for name in _SOURCES:
        path = results / f"bench_{name}.json"
        if not path.exists():
            raise UserError(
                "--results", str(path), "must be there: see experiments.benchmarks.bench_all"
            )
        found[name] = json.loads(path.read_text())
    local, store = found["local"], found["store"]
    cells = next(row for row in local["contenders"] if "ivf" in row["name"])
    machine = local["machine"]
    return Rates(
        _units(found["extract_r50_7"]),
        _pairs(local) * _units(local),
        _pairs(found["binary"]) * _units(found["binary"]),
        1.0 / cells["ratio"],
        found["global_one"]["size"]["images"] * _units(found["global_one"]),
        store["bytes"] / store["read_features"]["seconds"],
        store["images"],
        f"{machine['devices']} {machine['device']}, {machine['cpus']} cores",
    )


def plan(rates: Rates) -> list[dict[str, Any]]:
    """What each stage takes on one such machine.

    Args:
      rates: measured.

    Returns:
      For each stage: `stage`, `bytes` read or written (0 for none), `seconds`, and `machines` that
      do it in `within` seconds.
    """
    database = IMAGES * FEATURES
    pairs = QUERY_FEATURES * database
    images = {name: _store_bytes(size) for name, size in _DESCRIPTOR.items()}
    rows = [
        ("extract all images", 0, IMAGES / rates.images, 86_400.0),
        *(
            (f"read the store, {name}", size, size / rates.read, 60.0)
            for name, size in images.items()
        ),
        ("a query, global", 4 * GLOBAL_DIM * IMAGES, IMAGES / rates.global_images, 0.1),
        ("a query, local, floats", 2 * LOCAL_DIM * database, pairs / rates.floats, 1.0),
        ("a query, local, one bit", LOCAL_DIM // 8 * database, pairs / rates.bits, 1.0),
        (
            "a query, local, engine ivf",
            2 * LOCAL_DIM * database,
            pairs / rates.floats / rates.cells,
            1.0,
        ),
        ("70 queries, local, one bit", 0, QUERIES * pairs / rates.bits, 60.0),
        ("the similarity graph, one bit", 0, IMAGES * pairs / rates.bits, 7 * 86_400.0),
        (
            "the similarity graph, one bit, 100 features",
            0,
            IMAGES * pairs / 100 / rates.bits,
            7 * 86_400.0,
        ),
    ]
    return [
        {
            "stage": stage,
            "bytes": size,
            "seconds": seconds,
            "within": within,
            "machines": max(1, -(-seconds // within)),
        }
        for stage, size, seconds, within in rows
    ]


def text(rates: Rates, rows: list[dict[str, Any]]) -> str:
    """The plan in Markdown."""
    cells = [
        [
            row["stage"],
            f"{row['bytes'] / 1e9:,.0f}" if row["bytes"] else "",
            _duration(row["seconds"]),
            f"{row['machines']:,.0f} in {_duration(row['within'])}",
        ]
        for row in rows
    ]
    measured = [
        ["images extracted, ResNet-50, 7 scales, 512 pixels", f"{rates.images:.3g}"],
        ["pairs of features compared, floats", f"{rates.floats:.3g}"],
        ["pairs of features compared, one bit", f"{rates.bits:.3g}"],
        ["images compared with a global query", f"{rates.global_images:.3g}"],
        ["bytes of a store read", f"{rates.read:.3g}"],
    ]
    head = f"# A billion local features\n\nR1M with {IMAGES:,} images, {FEATURES:,} features each, "
    head += f"{LOCAL_DIM} dimensions, and {QUERY_FEATURES:,} features a query. The times are "
    head += "arithmetic from the rates below, in proportion to the pairs compared; none of them "
    head += "was measured at this size. The largest store that was built and read has "
    head += f"{rates.largest:,} images. Machines share a database by its images, and are taken to "
    head += "gain in proportion to their number.\n"
    table = markdown(["stage", "GB", "on one machine", "machines"], cells)
    source = markdown([f"measured on {rates.machine}", "a second"], measured)
    return f"{head}\n{table}\n\n{source}\n"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "results", "experiments/results", "Of rates and plan.")


def run(values: flags.FlagValues) -> None:
    """Computes and writes the plan."""
    results = pathlib.Path(values.results)
    rates = read_rates(results)
    rows = plan(rates)
    workdir.write_json(results / "scale.json", {"rates": dataclasses.asdict(rates), "plan": rows})
    content = text(rates, rows)
    workdir.write_text(results / "scale.md", content)
    print(content, end="")


def _store_bytes(descriptor: int) -> int:
    return IMAGES * (2 * GLOBAL_DIM + FEATURES * (descriptor + _PLACE))


def _units(result: Mapping[str, Any]) -> float:
    """Of ours a second."""
    return result["contenders"][0]["units_per_second"]


def _pairs(result: Mapping[str, Any]) -> float:
    """Pairs of features compared for one query."""
    size = result["size"]
    return size["features"] ** 2 * size["images"]


def _duration(seconds: float) -> str:
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
