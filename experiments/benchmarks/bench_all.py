"""Runs every case of `delg bench` beside its peers, and puts the table into the documentation.

    python -m experiments.benchmarks.bench_all
    python -m experiments.benchmarks.bench_all --size=tiny --only=mds,global --page=

Each case runs in its own process, so that the threads and memory of one do not slow down the next.
Writes bench_NAME.json for each case into --results, and rewrites the text between the marks in
--page from all such files. Cases that fail are listed at the end.
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
from delg_jax.benchmarks.bench import CASE_MODULES, MEMORY
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError, require_choice
from delg_jax.reports.tables import markdown

BEGIN, END = "<!-- bench:begin -->", "<!-- bench:end -->"
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


def table(results: Sequence[Mapping[str, Any]]) -> str:
    """Returns a row for each implementation of each case, with the environment below.

    Args:
      results: of `bench`, and of `bench_memory`, which gets its own table.

    Returns:
      Markdown.
    """
    timed = [result for result in results if result["name"] != MEMORY]
    rows = [row for result in timed for row in _rows(result)]
    header = ["benchmark", "what", "time", "spread", "times ours", "of roofline"]
    parts = [markdown(header, rows)] if rows else []
    for result in results:
        if result["name"] == MEMORY:
            parts.append(_memory_table(result))
    environments = {
        json.dumps(_key(result["environment"])): result["environment"] for result in results
    }
    parts += [_caption(environment) for environment in environments.values()]
    return "\n\n".join(parts)


def replaced(text: str, inner: str) -> str:
    """Returns the text with `inner` between the marks.

    Raises:
      UserError: if a mark is missing, or they are in the wrong order.
    """
    before, begin, rest = text.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        raise UserError("--page", BEGIN, f"must be in the file, before {END}")
    return f"{before}{BEGIN}\n{inner}\n{END}{after}"


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


def _key(environment: Mapping[str, Any]) -> dict[str, Any]:
    return {name: environment[name] for name in ("device", "processor", "cpus", "commit")}


def _caption(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items())
    device = f"{environment['devices']} {environment['device']}, {environment['cpus']} cores"
    return f"{device} ({environment['processor']}); {versions}; commit {environment['commit']}."


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_string("size", "standard", "standard, or tiny for a trial.", flag_values=values)
    flags.DEFINE_string("peers", "all", "all, or none.", flag_values=values)
    flags.DEFINE_list("only", [], "Cases to run; empty for all.", flag_values=values)
    arguments.define_path(
        values, "page", "docs/benchmarks.md", "File with the marks; empty for none."
    )
    arguments.define_path(values, "results", "experiments/results", "Folder of the results.")


def run(values: flags.FlagValues) -> None:
    """Runs the cases and prints the table."""
    for name in values.only:
        require_choice("--only", name, ORDER)
    results, start = pathlib.Path(values.results), time.monotonic()
    results.mkdir(parents=True, exist_ok=True)
    chosen = [name for name in ORDER if not values.only or name in values.only]
    paths = {name: results / f"bench_{name}.json" for name in ORDER}
    errors = [measure(name, values.size, values.peers, paths[name]) for name in chosen]
    text = table([json.loads(paths[name].read_text()) for name in ORDER if _is_result(paths[name])])
    print(text)
    print(f"{(time.monotonic() - start) / 60:.1f} minutes", *filter(None, errors), sep="\n")
    if values.page:
        page = pathlib.Path(values.page)
        workdir.write_text(page, replaced(page.read_text(encoding="utf-8"), text))


def _is_result(path: pathlib.Path) -> bool:
    """Returns whether the file exists and was written by this version."""
    return path.exists() and not {"implementations", "rows"}.isdisjoint(
        json.loads(path.read_text())
    )


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
