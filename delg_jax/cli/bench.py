"""Times one kernel beside its peers, on the same inputs, in turn.

    train                    a step of ResNet-50 and both heads: PyTorch, plain and compiled
    extract_r18_3, extract_r18_7, extract_r50_3, extract_r50_7
                             ResNet-18 or -50, 3 or 7 scales: PyTorch, by image or in batches
    verify                   spatial verification: NumPy, OpenCV, scikit-image (the official way)
    global, global_one       64 queries or one: faiss, NumPy
    local                    exact and approximate engines: faiss, the bare matrix product
    binary                   one bit per dimension: faiss
    mds                      similarity embeddings: NumPy, scikit-learn
    input                    decoded and cropped JPEGs: tf.data, PyTorch
    memory                   peak memory of each stage by number of images; no peers

    delg bench global --repeats=9 --output=global.json
    delg bench global --peers=faiss --size=tiny
    delg bench --compare old.json new.json

Implementations take turns after a warm-up; the first call, which compiles, is timed apart. Sizes
are standard (for a CPU), gpu, and tiny for a trial. Peers that are not installed are left out.
--compare prints what changed by more than the spread of both files, and exits with status 1 if our
time grew by a larger factor than that of any peer.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from delg_jax import json_files, workdir
from delg_jax.cli import arguments
from delg_jax.errors import UserError
from delg_jax.json_files import anything, each, every, fields, finite, require, text
from delg_jax.reports import benchmarks as tables

POSITIONAL = "[NAME]"

_REGRESSION_STATUS = 1


def _seconds(value: Any, where: str) -> None:
    finite(value, where)
    require(value > 0, where, "must be above 0")


_TIMED = fields({"name": text, "kind": text, "median": _seconds, "spread": finite})
_RESULT = fields(
    {"name": text, "size": each(anything), "unit": text, "implementations": every(_TIMED)}
)


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    flags.DEFINE_integer("repeats", 5, "Timed rounds.", flag_values=values)
    flags.DEFINE_string("size", "standard", "standard, gpu or tiny.", flag_values=values)
    flags.DEFINE_string(
        "peers", "all", "all, none, or names separated by commas.", flag_values=values
    )
    arguments.define_path(values, "output", None, "JSON file for the result.")
    flags.DEFINE_boolean("compare", False, "Compare two results, OLD NEW.", flag_values=values)


def run(values: flags.FlagValues, *names: str) -> None:
    """Runs a benchmark and prints its table, or compares two results."""
    if values.compare:
        if len(names) != 2:
            raise UserError("--compare", " ".join(names), "must be two files, OLD NEW")
        if _compare(*(_read(pathlib.Path(name)) for name in names)):
            sys.exit(_REGRESSION_STATUS)
        return
    if len(names) != 1:
        from delg_jax.benchmarks.bench import CASE_MODULES, MEMORY

        rule = f"needs one NAME: {', '.join((*CASE_MODULES, MEMORY))}"
        raise UserError("delg bench", " ".join(names), rule)
    result = _measured(values, names[0])
    if values.output:
        workdir.write_json(pathlib.Path(values.output), result)


def _measured(values: flags.FlagValues, name: str) -> dict[str, Any]:
    from delg_jax.benchmarks import bench

    if name == bench.MEMORY:
        result = bench.bench_memory(values.size)
        print(tables.memory_table(result))
        return result
    result = bench.bench(name, values.repeats, values.size, values.peers)
    print(tables.benchmark_table(result))
    if line := tables.roofline_line(result):
        print(line)
    return result


def _compare(old: dict[str, Any], new: dict[str, Any]) -> bool:
    """Prints what changed; returns whether ours became slower."""
    for field in ("name", "size"):
        if old[field] != new[field]:
            raise UserError("--compare", new[field], f"must have the {field} {old[field]}")
    found = tables.changes(old, new)
    if not found:
        print("nothing changed by more than the spread")
        return False
    print(tables.changes_table(new["unit"], found))
    return tables.is_regression(found)


def _read(path: pathlib.Path) -> dict[str, Any]:
    remedy = "`delg bench --output` writes such files"
    result = json_files.read(path, "--compare", _RESULT, remedy)
    if result is None:
        raise UserError("--compare", str(path), f"must be a file; {remedy}")
    return result
