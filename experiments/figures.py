"""Fills the figures of the README and of the documentation from the result files.

    python -m experiments.figures            # writes them
    python -m experiments.figures --check    # only says which differ, and which have no mark

A figure stands between two comments; the first names a result file and holds a template:

    <!-- figures store_reading: {open_store/seconds:ms .2f} ms -->0.45 ms<!-- /figures -->

A template may have many lines, such as a table. Its fields are

    {a/b/row=x&column=y:ms .2f}  a value by its path, with a unit and a format; see `UNITS`
    {a ÷ b:.1f}                  a ratio of two values
    {ROW | COLUMN}               a cell of a table, with its interval; `:value` leaves that out
    {ROW over ROW | COLUMN}      a comparison, with interval and p; `:short` leaves out the former,
                                 `:value` both; `:paper` gives the numbers of the paper, `:side`
                                 what the comparison says of the claim
    {NAME#...}                   one of these from another file
    {source}                     the commit, date and processor of the file
    {text}, {bench}, {ratio CASE | PEER}, {choice A; B}, {first A; B}, {ablation}  see these
                 functions

`<!-- figures? NAME: ...` may name a file that is yet to be measured. What is published or chosen,
not measured here, stands between `<!-- given: WHY -->` and `<!-- /given -->`.
"""

import difflib
import json
import pathlib
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from absl import flags

from delg_jax import workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.errors import UserError
from delg_jax.reports.tables import markdown
from experiments.benchmarks import bench_all
from experiments.framework import ablation as ablations

# By name of a unit, what a value is multiplied by; `1/` turns it over first
UNITS = {"ms": 1e3, "us": 1e6, "%": 100.0, "KB": 1e-3, "MB": 1e-6, "GB": 1e-9, "days": 1 / 86_400}
ROOT = pathlib.Path(__file__).resolve().parents[1]
RESULTS = ROOT / "experiments" / "results"

PENDING = "not measured yet"
_LEVEL = 0.05  # of significance

_MARK = re.compile(
    r"<!-- figures(?P<pending>\?)?(?: (?P<name>[\w.-]+))?:(?P<template>.*?)-->.*?<!-- /figures -->",
    re.DOTALL,
)
_FIELD = re.compile(r"\{([^{}]+)\}")
# What is not a figure: fenced code, given numbers, other comments, versions, levels of intervals
_LINES = (
    re.compile(r"^```.*?^```[^\n]*$", re.MULTILINE | re.DOTALL),
    _MARK,
    re.compile(r"<!-- given:.*?-->.*?<!-- /given -->", re.DOTALL),
    re.compile(r"<!--.*?-->", re.DOTALL),
)
_WORDS = re.compile(
    r"`[^`]*`|\]\([^)]*\)|\b(?:Python|License|jax|uPlot) \d[\d.]*(?: to \d[\d.]*)?|95 % "
)
# A decimal, or a number with a unit of what is measured
_FIGURE = re.compile(
    r"(?<![\w.-])[+-]?\d[\d,]*(?:\.\d+|(?:\.\d+)?\s?(?:%|(?:ms|us|s|min|images/s|[KMG]B)\b))"
)


def pages(root: pathlib.Path = ROOT) -> list[pathlib.Path]:
    """The pages whose figures have marks: the README and those of `docs`."""
    return [root / "README.md", *sorted((root / "docs").glob("*.md"))]


def filled(text: str, results: pathlib.Path = RESULTS) -> str:
    """The text of a page with the figures of the result files.

    Args:
      text: Markdown.
      results: folder of the result files.

    Returns:
      The text; only what stands between marks differs.

    Raises:
      UserError: for a file, value or format that does not exist.
    """
    files = Results(results)

    def replace(found: re.Match[str]) -> str:
        name, template = found["name"] or "", found["template"]
        if found["pending"] and not (results / f"{name}.json").is_file():
            inner = PENDING
        else:
            inner = _FIELD.sub(lambda field: _text(files, name, field[1]), template)
        is_block = template.startswith("\n")
        inner = f"\n\n{inner.strip()}\n\n" if is_block else inner.strip()
        opening = found[0][: found.end("template") - found.start()]
        return f"{opening}-->{inner}<!-- /figures -->"

    return _MARK.sub(replace, text)


def unmarked(text: str) -> list[str]:
    """Lines of a page, with their numbers, that hold a figure outside of marks.

    Code, links and what stands between `given` marks is left out.
    """
    for pattern in _LINES:
        text = pattern.sub(lambda found: "\n" * found[0].count("\n"), text)
    text = _WORDS.sub(lambda found: "\n" * found[0].count("\n"), text)
    lines = enumerate(text.splitlines(), start=1)
    return [f"{number}: {line.strip()}" for number, line in lines if _FIGURE.search(line)]


class Results:
    """The result files of a folder, each read once.

    Args:
      folder: of the files.
    """

    def __init__(self, folder: pathlib.Path) -> None:
        self.folder = folder
        self._read: dict[str, Any] = {}

    def __getitem__(self, name: str) -> Any:
        """The content of NAME.json."""
        if name not in self._read:
            path = self.folder / f"{name}.json"
            if not path.is_file():
                close = difflib.get_close_matches(
                    name, [p.stem for p in self.folder.glob("*.json")]
                )
                hint = f"; did you mean {close[0]}?" if close else ""
                raise UserError("figures", name, f"must be the name of a result file{hint}")
            self._read[name] = json.loads(path.read_text(encoding="utf-8"))
        return self._read[name]


def _text(files: Results, default: str, field: str) -> str:
    """What stands for a field of a template."""
    name, hash_sign, rest = field.partition("#")
    name, rest = (name, rest) if hash_sign else (default, field)
    word, _, argument = rest.partition(" ")
    if word in GENERATORS:
        return GENERATORS[word](files, name, argument)
    if " | " in rest:
        return _cell(files[name], *rest.split(" | ", 1))
    path, _, style = rest.partition(":")
    numbers = [_value(files[name], part) for part in path.split(" ÷ ")]
    value = numbers[0] if len(numbers) == 1 else numbers[0] / numbers[1]
    return _formatted(value, style)


def _formatted(value: Any, style: str) -> str:
    if value is None:
        return "-"
    if not style:
        return str(value)
    unit, space, spec = style.rpartition(" ")
    if unit == "1/":
        value = 1 / value
    elif space:
        value = value * UNITS[unit]
    return format(value, spec)


def _value(content: Any, path: str) -> Any:
    """The value at a path with slashes; `name=value` steps choose an entry of a list."""
    for step in path.strip().split("/"):
        if isinstance(content, list) and "=" in step:
            wanted = dict(part.split("=", 1) for part in step.split("&"))
            found = [one for one in content if all(str(one[k]) == v for k, v in wanted.items())]
            if len(found) != 1:
                raise UserError("figures", path, f"{step} must name one entry, not {len(found)}")
            content = found[0]
        elif isinstance(content, list) and step.lstrip("-").isdigit():
            content = content[int(step)]
        elif isinstance(content, Mapping) and step in content:
            content = content[step]
        else:
            raise UserError("figures", path, f"has no {step}")
    return content


def _cell(content: Any, row: str, column: str) -> str:
    """A cell of a table, or the comparison of two rows."""
    column, _, style = column.partition(":")
    better, over, worse = row.partition(" over ")
    if style == "paper":
        numbers = [
            _value(content, f"cells/row={one}&column={column}/paper")
            for one in (better, worse)
            if one
        ]
        return f"{numbers[0]:g}" if not over else f"{numbers[0] - numbers[1]:+.1f}"
    if over:
        one = _value(content, f"claims/better={better}&worse={worse}&column={column}")
        return _comparison(one, style)
    one = _value(content, f"cells/row={row}&column={column}")
    if one["ours"] is None:
        return "-"
    if one["low"] is None or style == "value" or _is_by_query(content):
        return f"{one['ours']:.2f}"
    return f"{one['ours']:.2f} [{one['low']:.2f}, {one['high']:.2f}]"


def _is_by_query(content: Any) -> bool:
    """Whether intervals and tests are of an earlier version, which took queries as independent."""
    return any("clusters" not in claim for claim in content["claims"])


def _comparison(claim: Mapping[str, Any], style: str) -> str:
    text = f"{claim['difference']:+.2f}"
    if style == "value":
        return text
    if style == "side":
        return _side(claim)
    if "clusters" not in claim:
        return f"{text}, not tested"
    if claim["low"] is not None and style != "short":
        text += f" [{claim['low']:+.2f}, {claim['high']:+.2f}]"
    if claim["p_value"] is None:
        return f"{text}, not tested"
    return f"{text}, p {claim['p_value']:.2g}, by Holm {claim['p_holm']:.2g}"


def _side(claim: Mapping[str, Any]) -> str:
    """On which side of a claim a comparison stands, at 5 % by landmark and Holm's correction."""
    side = "in favour" if claim["difference"] > 0 else "against"
    is_tested = claim.get("clusters") is not None and claim["p_value"] is not None
    return side if is_tested and claim["p_holm"] <= _LEVEL else f"leans {side}"


def source(files: Results, name: str, argument: str) -> str:
    """Where a result file comes from: commit, date and processor, or when it was stored."""
    del argument
    found = files[name]["environment"]
    commit, stored = found["commit"], found.get("stored")
    parts = [f"commit {commit}"]
    if found["date"] != "unknown":
        parts.append(found["date"])
    elif stored:
        parts.append(f"stored by {stored['commit']} on {stored['date']}")
    if found["processor"] != "unknown":
        parts.append(found["processor"])
    return ", ".join(parts)


def text(files: Results, name: str, argument: str) -> str:
    """The tables that the program wrote to NAME.md, without its heading."""
    del argument
    path = files.folder / f"{name}.md"
    if not path.is_file():
        raise UserError("figures", path.name, "must be a file beside the result")
    return re.sub(r"\A# .*\n+", "", path.read_text(encoding="utf-8")).strip()


def bench(files: Results, name: str, argument: str) -> str:
    """The tables of all benchmarks, one for each kind of processor."""
    del name, argument
    return bench_all.table(bench_all.stored(files.folder))


def ratio(files: Results, name: str, argument: str) -> str:
    """How many times the time of ours a peer takes, `CASE | PEER`, on each kind of processor.

    The ratio is claimed, as the smallest of all, only if it has the same direction on at least two
    kinds of processor; otherwise each stands with its processor.
    """
    del name
    case, _, peer = argument.partition(" | ")
    found = {}
    for result in bench_all.stored(files.folder):
        if result["name"] == case:
            rows = {one["name"]: one for one in result["implementations"]}
            names = [name for name in rows if name.startswith(peer)]
            if peer in rows or len(names) == 1:
                one = rows[peer if peer in rows else names[0]]
                found[bench_all.processor(result)] = one["ratio"]
    if not found:
        raise UserError("figures", argument, "must be a case and a peer of a benchmark")
    values = sorted(found.values())
    if len(values) > 1 and values[0] > 1:
        return f"at least {values[0]:.2g}"
    if len(values) > 1 and values[-1] < 1:
        return f"at most {values[-1]:.2g}"
    return " and ".join(f"{value:.2g} ({name})" for name, value in sorted(found.items()))


def choice(files: Results, name: str, argument: str) -> str:
    """A row for each data set: mAP Medium and Hard of local search, and the gains of settings.

    The settings stand in `argument`, separated by semicolons; those that the file lacks are yet to
    be measured. A data set without Hard has one mAP.
    """
    return _gains(files[name]["rows"], argument, ("medium", "hard"))


def first(files: Results, name: str, argument: str) -> str:
    """As `choice`, of the precision at 1."""
    return _gains(files[name]["rows"], argument, ("mp@1",))


def _gains(measured: Sequence[Mapping[str, Any]], argument: str, of: Sequence[str]) -> str:
    settings = argument.split("; ")
    rows: dict[str, dict[str, str]] = {}
    for one in measured:
        kinds = [kind for kind in of if one.get(kind) is not None]
        cells = rows.setdefault(f"{one['data']} ({one['queries']} of {one['landmarks']})", {})
        if one["setting"] == "local":
            cells["local"] = " / ".join(f"{one[kind]['mean']:.2f}" for kind in kinds)
        else:
            gains = [one[f"{kind} gain"] for kind in kinds]
            parts = [f"{gain['mean']:+.2f} (p {gain['p_value']:.2g})" for gain in gains]
            cells[one["setting"]] = " / ".join(parts)
    shown = ["local", *settings]
    cells_of = [
        [title, *(cells.get(name, PENDING) for name in shown)] for title, cells in rows.items()
    ]
    return markdown(["data, queries of landmarks", *shown], cells_of)


def ablation(files: Results, name: str, argument: str) -> str:
    """The tables of an ablation, one for each field."""
    del argument
    content = files[name]
    fields = {
        f: rows for f, rows in content.items() if f not in ("base", "environment", "checksum")
    }
    return "\n\n".join(ablations.ablation_table(field, rows, "") for field, rows in fields.items())


GENERATORS: dict[str, Callable[[Results, str, str], str]] = {
    "source": source,
    "text": text,
    "choice": choice,
    "first": first,
    "bench": bench,
    "ratio": ratio,
    "ablation": ablation,
}


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    flags.DEFINE_boolean(
        "check", False, "Write nothing; fail if a figure differs.", flag_values=values
    )
    arguments.define_path(values, "root", str(ROOT), "Folder of README.md, docs and experiments.")


def run(values: flags.FlagValues) -> None:
    """Fills all pages, or checks them."""
    root = pathlib.Path(values.root)
    wrong = []
    for page in pages(root):
        text = page.read_text(encoding="utf-8")
        new = filled(text, root / "experiments" / "results")
        if new != text and not values.check:
            workdir.write_text(page, new)
            print(f"{page.relative_to(root)}: written")
        elif new != text:
            lines = difflib.unified_diff(
                text.splitlines(), new.splitlines(), "page", "results", n=0
            )
            print(page.relative_to(root), *lines, sep="\n")
            wrong.append(f"{page.name}: differs from the result files")
        wrong += [f"{page.name}:{line}" for line in unmarked(new)]
    if wrong:
        print(*wrong, sep="\n")
        rule = (
            "must come from result files; `python -m experiments.figures` writes those with marks"
        )
        raise UserError("figures", f"{len(wrong)} places", rule)


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
