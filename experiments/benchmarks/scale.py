"""A plan for a billion local features (R1M): bytes, time and machines, from measured rates.

    python -m experiments.benchmarks.scale

Nothing is run: the rates are read from the benchmarks extract_r50_7, local, binary and global_one
of one kind of processor, and from store_reading.json, in --results, and time is taken as
proportional to images and features, as in search_growth.json. Writes scale.json and scale.md into
--results.
"""

import dataclasses
import json
import pathlib
import sys
from collections.abc import Mapping
from typing import Any

from absl import flags

from delg_jax.benchmarks import harness
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.reports.tables import markdown
from experiments.benchmarks import bench_all

IMAGES, FEATURES, QUERY_FEATURES = 1_005_994, 1000, 1000  # ROxford and R1M
GLOBAL_DIM, LOCAL_DIM = 2048, 128
QUERIES = 70
_KEYPOINT = 16  # bytes of a location, scale and score
_DESCRIPTOR_BYTES = {"float16": 2 * LOCAL_DIM, "int8": LOCAL_DIM + 4, "sign": LOCAL_DIM // 8}
_CASES = ("extract_r50_7", "local", "binary", "global_one")  # of benchmarks


@dataclasses.dataclass(frozen=True)
class Rates:
    """What one machine does per second.

    Attributes:
      images: extracted.
      floats: pairs of a query feature and a database feature compared as floats.
      bits: pairs compared as signs.
      ivf: speed of the engine ivf over that of exact search.
      global_images: compared with one query.
      read: bytes of a store read.
      largest: images of the largest store that was read.
      machine: on which all but the store was measured.
    """

    images: float
    floats: float
    bits: float
    ivf: float
    global_images: float
    read: float
    largest: int
    machine: str


def read_rates(results: pathlib.Path) -> Rates:
    """Reads the rates from results of benchmarks; a UserError names a missing one."""
    by_kind: dict[str, dict[str, Any]] = {}
    for result in bench_all.stored(results):
        by_kind.setdefault(bench_all.processor(result), {})[result["name"]] = result
    whole = [kind for kind, found in sorted(by_kind.items()) if set(_CASES) <= set(found)]
    path = results / "store_reading.json"
    if not whole or not path.exists():
        missing = path if whole else results / f"bench_{_CASES[0]}_on_*.json"
        rule = f"must exist; run bench_all ({', '.join(_CASES)} on one machine) and store_reading"
        raise UserError("--results", str(missing), rule)
    extract, local, binary, global_one = (by_kind[whole[0]][name] for name in _CASES)
    store = json.loads(path.read_text())
    ivf = next(row for row in local["implementations"] if "ivf" in row["name"])
    machine = local["environment"]
    return Rates(
        _units(extract),
        _pairs(local) * _units(local),
        _pairs(binary) * _units(binary),
        1.0 / ivf["ratio"],
        global_one["size"]["images"] * _units(global_one),
        store["bytes"] / store["read_features"]["seconds"],
        store["images"],
        f"{machine['devices']} {machine['device']}, {machine['cpus']} cores ({whole[0]})",
    )


def plan(rates: Rates) -> list[dict[str, Any]]:
    """Computes what each stage takes.

    Args:
      rates: of one machine.

    Returns:
      For each stage: `stage`, `bytes` read or written (0 for none), `seconds` on one machine, and
      the number of `machines` that do it in `within` seconds.
    """
    database = IMAGES * FEATURES
    pairs = QUERY_FEATURES * database
    images = {name: _store_bytes(size) for name, size in _DESCRIPTOR_BYTES.items()}
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
            pairs / rates.floats / rates.ivf,
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
    """Returns the plan in Markdown."""
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
    head += f"{LOCAL_DIM} dimensions, and {QUERY_FEATURES:,} features per query. The times are "
    head += "computed from the rates below, in proportion to the pairs compared; none was measured "
    head += "at this size. The largest store that was built and read has "
    head += f"{rates.largest:,} images. Machines split the database by images, and the speed is "
    head += "taken to grow in proportion to their number.\n"
    table = markdown(["stage", "GB", "on one machine", "machines"], cells)
    source = markdown([f"measured on {rates.machine}", "a second"], measured)
    return f"{head}\n{table}\n\n{source}\n"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(
        values, "results", "experiments/results", "Folder of the rates and of the plan."
    )


def run(values: flags.FlagValues) -> None:
    """Computes and writes the plan."""
    results = pathlib.Path(values.results)
    rates = read_rates(results)
    rows = plan(rates)
    found = {"rates": dataclasses.asdict(rates), "plan": rows}
    content = text(rates, rows)
    harness.write_result(results, "scale", found, content, config=found["rates"])
    print(content, end="")


def _store_bytes(descriptor: int) -> int:
    return IMAGES * (2 * GLOBAL_DIM + FEATURES * (descriptor + _KEYPOINT))


def _units(result: Mapping[str, Any]) -> float:
    """Units of our implementation per second."""
    return result["implementations"][0]["units_per_second"]


def _pairs(result: Mapping[str, Any]) -> float:
    """Pairs of features that one query compares."""
    size = result["size"]
    return size["features"] ** 2 * size["images"]


def _duration(seconds: float) -> str:
    for size, unit in ((365 * 86_400, "years"), (86_400, "days"), (3_600, "h"), (60, "min")):
        if seconds >= size:
            return f"{seconds / size:.3g} {unit}"
    return f"{seconds:.3g} s"


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
