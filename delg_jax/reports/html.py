"""Writes the report of workdirs as one self-contained HTML file."""

import base64
import hashlib
import importlib.resources
import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2
import markupsafe

from delg_jax import workdir
from delg_jax.data.ground_truth import PROTOCOLS
from delg_jax.errors import UserError
from delg_jax.reports import charts, method_results, sweep_tables, tables
from delg_jax.reports.explorer import Explorer, PageSettings
from delg_jax.reports.workdir_results import WorkdirResults, read, read_training
from delg_jax.training.metrics import read_records

# Folders with a stored configuration, by stage
_STAGES = {"training": "logs", "evaluation": "evaluation"}
_STYLES = ("vendor/uPlot.min.css", "report.css")
_SCRIPTS = ("elements.js", "pair.js", "found.js", "list.js", "charts.js", "start.js")
_IN_SCRIPTS = {ord(letter): f"\\u{ord(letter):04x}" for letter in "<>&\u2028\u2029"}


def write_report(
    workdirs: Sequence[str | pathlib.Path],
    output: str | pathlib.Path,
    title: str = "DELG image retrieval",
    data_root: str = "",
    settings: PageSettings | None = None,
) -> pathlib.Path:
    """Writes metrics, curves, queries with their results, and configurations of workdirs.

    Runs on the same queries and images are shown side by side and compared with the first of them.

    Args:
      workdirs: each with `metrics.json`, `train_metrics.json`, or both; not changed.
      output: the HTML file to write.
      title: title of the page.
      data_root: folder of the data set if it moved; "" to use the stored configurations.
      settings: amount of content; None for the defaults.

    Returns:
      The file.

    Raises:
      UserError: if a workdir holds no metrics, or a file in it is damaged.
    """
    folders = [pathlib.Path(folder) for folder in workdirs]
    runs = [read(folder, data_root) for folder in folders]
    shown = [_run(run) for run in runs]
    groups = [
        _group([runs[number] for number in members], settings or PageSettings())
        for members in method_results.group_runs(runs)
    ]
    style, script = ("\n".join(map(_template_text, names)) for names in (_STYLES, _SCRIPTS))
    page = (
        _environment()
        .get_template("report.html")
        .render(
            title=title,
            runs=shown,
            groups=groups,
            style=markupsafe.Markup(style),
            scripts=[_script(_chart_library()), _script(script)],
        )
    )
    output = pathlib.Path(output)
    workdir.write_text(output, page)
    return output


def json_for_script(content: Any) -> markupsafe.Markup:
    """JSON for a script element, escaped so that nothing in it can end the element."""
    text = json.dumps(content, separators=(",", ":"), allow_nan=False, ensure_ascii=False)
    return markupsafe.Markup(text.translate(_IN_SCRIPTS))


def _environment() -> jinja2.Environment:
    return jinja2.Environment(
        loader=jinja2.PackageLoader("delg_jax.reports", "templates"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )


def _template_text(name: str) -> str:
    """Text of a style sheet or script of the page."""
    return (importlib.resources.files("delg_jax.reports") / "templates" / name).read_text("utf-8")


def _chart_library() -> str:
    """The chart library, with the licence that every copy must include."""
    licence, script = map(_template_text, ("vendor/uPlot.LICENSE", "vendor/uPlot.iife.min.js"))
    return f"/*\n{licence}*/\n{script}"


def _script(text: str) -> dict[str, str]:
    """A script of the page, and its digest for the Content-Security-Policy."""
    digest = base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()
    return {"text": markupsafe.Markup(text), "sha256": digest}


def _run(run: WorkdirResults) -> dict[str, Any]:
    """Values for the template from one workdir."""
    folder, result = run.folder, run.metrics
    training = read_training(folder / "train_metrics.json")
    if not result and training is None:
        rule = "must be a workdir with metrics.json or train_metrics.json"
        raise UserError("workdir", str(folder), rule)
    configurations = [
        (stage, sorted(workdir.stored_config(folder / name).items()))
        for stage, name in _STAGES.items()
        if (folder / name / workdir.CONFIG_FILE).is_file()
    ]
    return {
        "name": str(folder),
        "methods": tables.retrieval_cells(result) if result else None,
        "intervals": sweep_tables.interval_cells(result),
        "queries": result.get("queries"),
        "images": result.get("images"),
        "notes": run.notes,
        "training": [(name, f"{value:.4g}") for name, value in sorted((training or {}).items())],
        "charts": charts.training(read_records(folder / "logs")),
        "configurations": configurations,
    }


def _group(runs: Sequence[WorkdirResults], settings: PageSettings) -> dict[str, Any]:
    """Values for the template from the queries of runs on the same data."""
    results = {}
    for result in method_results.collect_results(runs):
        results[f"{result.run + 1}: {result.method}" if len(runs) > 1 else result.method] = result
    truth, explorer = method_results.ground_truth(runs), Explorer(runs, results, settings)
    plots = [charts.by_query(results, explorer.chosen, protocol) for protocol in PROTOCOLS]
    compared = [
        charts.differences(results, number, explorer.chosen, "medium")
        for number, result in enumerate(results.values())
        if result.baseline is not None
    ]
    recall = [charts.precision_recall(results, truth, p) for p in PROTOCOLS] if truth else []
    content = explorer.content()
    return {
        "runs": [str(run.folder) for run in runs],
        "queries": len(next(iter(results.values())).rankings["medium"]),
        "listed": len(explorer.chosen),
        "pictures": bool(content["pictures"]),
        "left_out": content["leftOut"],
        "recall": [drawn for drawn in recall if drawn],
        "by_query": [drawn for drawn in plots if drawn],
        "differences": sweep_tables.difference_cells(results),
        "by_difference": [drawn for drawn in compared if drawn],
        "content": json_for_script(content),
    }
