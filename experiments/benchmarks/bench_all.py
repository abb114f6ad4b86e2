"""Runs every case of `delg bench` beside its peers.

    python -m experiments.benchmarks.bench_all
    python -m experiments.benchmarks.bench_all --size=tiny --only=mds,global --results=DIR

Each case runs in its own process, so that the threads and memory of one do not slow down the next.
Writes bench_NAME_on_PROCESSOR.json for each case into --results, beside those of other kinds of
processor, and prints the tables of all; `experiments.figures` puts them into the documentation.
Cases that fail are listed at the end.
"""

import json
import pathlib
import re
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from delg_jax.benchmarks import environment
from delg_jax.benchmarks.bench import CASE_MODULES, MEMORY
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import require_choice
from delg_jax.reports.tables import markdown

ORDER = (*CASE_MODULES, MEMORY)
REPEATS = {  # rounds of the slower cases
    "train": 5,
    "extract_r50_3": 3,
    "extract_r50_7": 3,
    "local": 3,
    "binary": 3,
    "mds": 5,
}
_DEFAULT_REPEATS = 7
_LIMIT = 420  # seconds for a case
_KINDS = {"ours": "", "variant": " (ours)", "peer": " (peer)"}


def measure(name: str, size: str, peers: str, path: pathlib.Path) -> str:
    """Runs one case in a new process.

    Args:
      name: of the case.
      size: of its inputs.
      peers: `--peers` of `delg bench`.
      path: of the JSON file.

    Returns:
      The error, empty if there was none.
    """
    flags_of_size = [
        f"--size={size}",
        f"--repeats={REPEATS.get(name, _DEFAULT_REPEATS)}",
        f"--peers={peers}",
    ]
    command = [sys.executable, "-m", "delg_jax", "bench", name, *flags_of_size]
    try:
        subprocess.run([*command, f"--output={path}"], check=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return f"{name}: took more than {_LIMIT} seconds"
    except subprocess.CalledProcessError as error:
        return f"{name}: ended with status {error.returncode}"
    return ""


def processor(result: Mapping[str, Any]) -> str:
    """The kind of processor, or of accelerator, that a result was measured on: `Intel Xeon`."""
    machine = result["environment"]
    is_cpu = machine.get("device", "cpu") == "cpu"
    return kind_of_processor(machine["processor"]) if is_cpu else machine["device"]


def kind_of_processor(name: str) -> str:
    """The name of a processor without marks, clock and number of cores."""
    name = re.sub(r"\(R\)|\(TM\)|@.*|\b(CPU|Processor|\d+-Core)\b", " ", name, flags=re.IGNORECASE)
    return " ".join(name.split()) or "unknown"


def path_of(results: pathlib.Path, name: str, kind: str) -> pathlib.Path:
    """The file of a case on a kind of processor."""
    slug = re.sub(r"[^a-z0-9]+", "_", kind.lower()).strip("_")
    return results / f"bench_{name}_on_{slug}.json"


def stored(results: pathlib.Path) -> list[dict[str, Any]]:
    """The results of all cases and kinds of processor that a folder holds, in `ORDER`."""
    found = []
    for name in ORDER:
        for path in sorted(results.glob(f"bench_{name}_on_*.json")):
            content = json.loads(path.read_text(encoding="utf-8"))
            if not {"implementations", "rows"}.isdisjoint(content):  # of this version
                found.append(content)
    return found


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row for each implementation of each case, for each kind of processor.

    Args:
      results: of `bench`, and of `bench_memory`, which gets its own table.

    Returns:
      Markdown; below the tables of a processor, what it is and where the results come from.
    """
    parts = []
    for kind in sorted({processor(result) for result in results}):
        own = [result for result in results if processor(result) == kind]
        rows = [row for result in own if result["name"] != MEMORY for row in _rows(result)]
        header = [f"{kind}: benchmark", "what", "time", "spread", "times ours", "of roofline"]
        parts += [markdown(header, rows)] if rows else []
        parts += [_memory_table(result) for result in own if result["name"] == MEMORY]
        parts.append(_caption([result["environment"] for result in own]))
    return "\n\n".join(parts)


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    roofline, rows = result["roofline"], []
    for timed in result["implementations"]:
        ours = timed["kind"] == "ours"
        facts = "".join(f", {name} {value:.0%}" for name, value in timed["facts"].items())
        share = f"{roofline['share']:.0%}" if ours and roofline else ""
        rows.append(
            [
                result["name"] if ours else "",
                timed["name"] + _KINDS[timed["kind"]] + facts,
                f"{_short(timed['median'])}/{result['unit']}",
                _short(timed["spread"]),
                "" if ours else f"{timed['ratio']:.2f}",
                share,
            ]
        )
    return rows


def _memory_table(result: Mapping[str, Any]) -> str:
    """Returns a row for each stage, with its peak memory by number of images."""
    stages: dict[tuple[str, str], list[str]] = {}
    for row in result["rows"]:
        peak = "-" if row["megabytes"] is None else f"{row['megabytes']:.0f}"
        of_stage = stages.setdefault((row["stage"], row["bound"]), [])
        of_stage.append(f"{peak} at {row['images']:,}")
    rows = [[stage, bound, ", ".join(peaks)] for (stage, bound), peaks in stages.items()]
    return markdown(["stage", "bounded by", "MB at the peak, by images"], rows)


def _short(seconds: float) -> str:
    for factor, unit in ((1.0, "s"), (1e3, "ms")):
        if seconds * factor >= 1:
            return f"{seconds * factor:.3g} {unit}"
    return f"{seconds * 1e6:.3g} us"


def _caption(environments: Sequence[Mapping[str, Any]]) -> str:
    """The machine, versions, BLAS kernels and commits of results of one kind of processor."""
    one = environments[0]
    device = f"{one['devices']} {one['device']}, {one['cpus']} cores ({one['processor']})"
    parts = [device]
    for name in ("kernels", "pinned"):
        known = sorted({" ".join(e[name]) for e in environments if isinstance(e[name], list)})
        text = ", ".join(filter(None, known)) or ("none" if known else "unknown")
        parts.append(f"BLAS {name}: {text}")
    parts.append(", ".join(f"{name} {version}" for name, version in one["versions"].items()))
    commits = sorted({environment["commit"] for environment in environments})
    dates = sorted({_date(environment) for environment in environments})
    return "; ".join([*parts, f"commit {', '.join(commits)}; {', '.join(dates)}"]) + "."


def _date(environment: Mapping[str, Any]) -> str:
    """When a result was measured, or by when."""
    known = environment["date"] != "unknown"
    return environment["date"] if known else f"stored {environment['stored']['date']}"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_string("size", "standard", "standard, or tiny for a trial.", flag_values=values)
    flags.DEFINE_string("peers", "all", "all, or none.", flag_values=values)
    flags.DEFINE_list("only", [], "Cases to run; empty for all.", flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Runs the cases and prints the table."""
    for name in values.only:
        require_choice("--only", name, ORDER)
    results, start = pathlib.Path(values.results), time.monotonic()
    results.mkdir(parents=True, exist_ok=True)
    kind = kind_of_processor(environment.processor())
    chosen = [name for name in ORDER if not values.only or name in values.only]
    errors = [
        measure(name, values.size, values.peers, path_of(results, name, kind)) for name in chosen
    ]
    print(table(stored(results)))
    print(f"{(time.monotonic() - start) / 60:.1f} minutes", *filter(None, errors), sep="\n")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
