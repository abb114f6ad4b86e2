"""The report: what workdirs hold, as one HTML file that needs nothing else."""

import json
import pathlib
from collections.abc import Sequence
from typing import Any

import jinja2

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.reports import charts, tables

# Folders that keep a configuration, by what it decided.
_STAGES = {"training": "logs", "evaluation": "evaluation"}


def write_report(
    workdirs: Sequence[str | pathlib.Path],
    output: str | pathlib.Path,
    title: str = "DELG image retrieval",
) -> pathlib.Path:
    """Gathers metrics, training curves and configurations of workdirs.

    Args:
      workdirs: each with `metrics.json`, `train_metrics.json`, or both.
      output: the HTML file to write.
      title: heading of the page.

    Returns:
      The file.

    Raises:
      UserError: if a workdir holds no metrics, or a file in it is damaged.
    """
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("delg_jax.reports", "."),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    page = environment.get_template("template.html").render(
        title=title,
        runs=[_run(pathlib.Path(folder)) for folder in workdirs],
        width=charts.WIDTH,
        height=charts.HEIGHT,
    )
    output = pathlib.Path(output)
    artefacts.write_text(output, page)
    return output


def _run(folder: pathlib.Path) -> dict[str, Any]:
    """What the template shows of one workdir."""
    result = _read(folder / "metrics.json")
    training = _read(folder / "train_metrics.json")
    if result is None and training is None:
        rule = "must be a workdir with metrics.json or train_metrics.json"
        raise UserError("workdir", str(folder), rule)
    header, rows = tables.retrieval_cells(result) if result else ([], [])
    configurations = [
        (stage, sorted(artefacts.stored_config(folder / name).items()))
        for stage, name in _STAGES.items()
        if (folder / name / artefacts.CONFIG_FILE).is_file()
    ]
    return {
        "name": str(folder),
        "methods": {"header": header, "rows": rows} if result else None,
        "queries": result and result["queries"],
        "images": result and result["images"],
        "training": [(name, f"{value:.4g}") for name, value in sorted((training or {}).items())],
        "charts": charts.charts(_records(folder / "logs" / "metrics.jsonl")),
        "configurations": configurations,
    }


def _read(path: pathlib.Path) -> dict[str, Any] | None:
    if not path.is_file():
        return None
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise UserError("metrics", str(path), f"must be whole JSON ({error})") from error


def _records(path: pathlib.Path) -> list[dict[str, float]]:
    if not path.is_file():
        return []
    lines = path.read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines if line.endswith("}")]  # a kill leaves half a line
