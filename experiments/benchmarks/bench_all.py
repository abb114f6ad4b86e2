"""Runs the benchmarks of a CPU beside their peers, and puts the table into the README.

    python -m experiments.benchmarks.bench_all
    python -m experiments.benchmarks.bench_all --size=tiny --only=mds,global --readme=

Every benchmark is a process of its own, so that the threads and memory of one do not slow the
next. Writes bench_NAME.json for each into --results, and rewrites what stands between the marks in
--readme from all such files that are there. One that fails is named at the end.
"""

import json
import pathlib
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from typing import Any

from absl import flags

from delg_jax import workdir
from delg_jax.benchmarks.harness import MEMORY, NAMES
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError, require_choice
from delg_jax.reports.tables import markdown

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
ORDER = (*NAMES, MEMORY)
REPEATS = {  # rounds; more where one is short
    "train": 5,
    "extract_r50_3": 3,
    "extract_r50_7": 3,
    "local": 3,
    "binary": 3,
    "mds": 5,
}
_LIMIT = 420  # seconds that a benchmark may take
_KINDS = {"ours": "", "variant": " (ours)", "peer": " (peer)"}


def measure(name: str, size: str, peers: str, path: pathlib.Path) -> str:
    """Runs one benchmark in a new process.

    Args:
      name: of the benchmark.
      size: of its inputs.
      peers: as of `delg bench`.
      path: of the JSON file.

    Returns:
      What went wrong, empty if nothing did.
    """
    flags_of_size = [f"--size={size}", f"--repeats={REPEATS.get(name, 7)}", f"--peers={peers}"]
    command = [sys.executable, "-m", "delg_jax", "bench", name, *flags_of_size]
    try:
        subprocess.run([*command, f"--output={path}"], check=True, timeout=_LIMIT)
    except subprocess.TimeoutExpired:
        return f"{name}: took more than {_LIMIT} seconds"
    except subprocess.CalledProcessError as error:
        return f"{name}: ended with status {error.returncode}"
    return ""


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """A row for each contender of each benchmark, and the machine below.

    Args:
      results: of `benchmarks.bench`, and of `bench_memory`, which gets a table of its own.

    Returns:
      Markdown.
    """
    timed = [result for result in results if result["name"] != MEMORY]
    rows = [row for result in timed for row in _rows(result)]
    header = ["benchmark", "what", "time", "spread", "times ours", "of the limit"]
    parts = [markdown(header, rows)] if rows else []
    for result in results:
        if result["name"] == MEMORY:
            parts.append(_memory(result))
    machines = {json.dumps(_place(result["machine"])): result["machine"] for result in results}
    parts += [_caption(machine) for machine in machines.values()]
    return "\n\n".join(parts)


def replaced(text: str, inner: str) -> str:
    """The text with `inner` between the marks.

    Raises:
      UserError: if the marks are not there, in order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError("--readme", BEGIN, f"must stand in the file, before {END}")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


def _rows(result: Mapping[str, Any]) -> list[list[str]]:
    floor, rows = result["floor"], []
    for timed in result["contenders"]:
        ours = timed["kind"] == "ours"
        facts = "".join(f", {name} {value:.0%}" for name, value in timed["facts"].items())
        share = f"{floor['share']:.0%}" if ours and floor else ""
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


def _memory(result: Mapping[str, Any]) -> str:
    """Peaks of a stage in one row, by number of images."""
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


def _place(machine: Mapping[str, Any]) -> dict[str, Any]:
    return {name: machine[name] for name in ("device", "processor", "cpus", "commit")}


def _caption(machine: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in machine["versions"].items())
    device = f"{machine['devices']} {machine['device']}, {machine['cpus']} cores"
    return f"{device} ({machine['processor']}); {versions}; commit {machine['commit']}."


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_string("size", "standard", "standard, or tiny for a trial.", flag_values=values)
    flags.DEFINE_string("peers", "all", "all, or none.", flag_values=values)
    flags.DEFINE_list("only", [], "Names; empty for all.", flag_values=values)
    arguments.define_path(values, "readme", "README.md", "Empty for none.")
    arguments.define_path(values, "results", "experiments/results", "Of the numbers.")


def run(values: flags.FlagValues) -> None:
    """Measures, and prints the table."""
    for name in values.only:
        require_choice("--only", name, ORDER)
    results, start = pathlib.Path(values.results), time.monotonic()
    results.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in ORDER if not values.only or name in values.only]
    paths = {name: results / f"bench_{name}.json" for name in ORDER}
    wrong = [measure(name, values.size, values.peers, paths[name]) for name in chosen]
    text = table([json.loads(paths[name].read_text()) for name in ORDER if _is_result(paths[name])])
    print(text)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes", *filter(None, wrong), sep="\n")
    if values.readme:
        readme = pathlib.Path(values.readme)
        workdir.write_text(readme, replaced(readme.read_text(encoding="utf-8"), text))


def _is_result(path: pathlib.Path) -> bool:
    """Whether the file is there, and by the present program."""
    return path.exists() and not {"contenders", "rows"}.isdisjoint(json.loads(path.read_text()))


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
