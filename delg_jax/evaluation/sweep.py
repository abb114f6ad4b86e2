"""Sweeps: many runs of one configuration with a few fields changed, each in its own folder."""

import ast
import dataclasses
import itertools
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from delg_jax import configuration
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError, require_choice
from delg_jax.evaluation.stage import evaluate
from delg_jax.training.loop import train_and_evaluate

_LOG = logging.getLogger(__name__)

VERBS = {"train": train_and_evaluate, "evaluate": evaluate}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: its folder in the sweep's working directory.
      overrides: values of configuration fields by dotted path.
      verbs: what is done, in this order; keys of `VERBS`.
      group: what runs share that differ only in their seeds; a row of the table.
    """

    name: str
    overrides: Mapping[str, Any]
    verbs: tuple[str, ...]
    group: str


@dataclasses.dataclass(frozen=True)
class Result:
    """What became of a run.

    Attributes:
      run: the run.
      metrics: what each verb returned, by verb; those before an error are kept.
      error: why the run failed; empty if it did not.
    """

    run: Run
    metrics: dict[str, Any]
    error: str = ""


def grid(specs: Sequence[str], verbs: tuple[str, ...] = ("train", "evaluate")) -> list[Run]:
    """Lists the product of all values.

    Args:
      specs: `field=value,value,...` each; values are Python literals, or else strings.
      verbs: of every run.

    Returns:
      The runs, the last field varying fastest. Fields whose last name part is `seed` do not count
      for the group.

    Raises:
      UserError: for a spec of another form, or a field that occurs twice.
    """
    fields: dict[str, list[Any]] = {}
    for spec in specs:
        path, equals, text = spec.partition("=")
        if not (equals and path and text):
            raise UserError("--grid", spec, "must be field=value,value,...")
        if path in fields:
            raise UserError("--grid", spec, f"{path} occurs twice")
        fields[path] = _values(text)
    runs = []
    for values in itertools.product(*fields.values()):
        overrides = dict(zip(fields, values, strict=True))
        group = {f: v for f, v in overrides.items() if f.rpartition(".")[2] != "seed"}
        runs.append(Run(_name(overrides) or "run", overrides, verbs, _name(group) or "all"))
    return runs


def _values(text: str) -> list[Any]:
    try:
        return list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError):
        return [_literal(part) for part in text.split(",")]


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def _name(overrides: Mapping[str, Any]) -> str:
    """A readable name that is fit for a folder."""
    text = "_".join(f"{path}={value}" for path, value in overrides.items())
    return text.replace("/", "-").replace(" ", "")


def run(
    base: ml_collections.ConfigDict,
    runs: Sequence[Run],
    workdir: str | pathlib.Path,
    overwrite: bool = False,
) -> list[Result]:
    """Does all runs, one after the other; a run that fails does not stop the others.

    Called again, runs go on where they stopped. `sweep.json` is written after each run.

    Args:
      base: the configuration that runs change.
      runs: see `Run`.
      workdir: gets a folder for each run, and `sweep.json`.
      overwrite: whether artefacts of another configuration are deleted instead of refused.

    Returns:
      A result for each run, in their order.

    Raises:
      UserError: before the first run, for names that occur twice or a field or verb that does not
        exist.
    """
    root = pathlib.Path(workdir)
    configs = [configuration.override(base, one.overrides) for one in runs]
    _check(runs)
    results = []
    for number, (one, config) in enumerate(zip(runs, configs, strict=True), start=1):
        _LOG.info("run %d/%d: %s", number, len(runs), one.name)
        results.append(_run_one(one, config, root / one.name, overwrite))
        content = {"runs": [dataclasses.asdict(result) for result in results]}
        artefacts.write_json(root / "sweep.json", content)
    return results


def require_success(results: Sequence[Result]) -> None:
    """Raises a UserError that names the runs that failed, if any did."""
    failed = [f"{result.run.name} ({result.error})" for result in results if result.error]
    if failed:
        raise UserError("sweep", f"{len(failed)} of {len(results)} runs", "; ".join(failed))


def _check(runs: Sequence[Run]) -> None:
    names = [one.name for one in runs]
    for one in runs:
        if names.count(one.name) > 1:
            raise UserError("sweep", one.name, "is the name of two runs")
        for verb in one.verbs:
            require_choice("--verbs", verb, tuple(VERBS))


def _run_one(
    one: Run, config: ml_collections.ConfigDict, folder: pathlib.Path, overwrite: bool
) -> Result:
    metrics = {}
    try:
        for verb in one.verbs:
            metrics[verb] = VERBS[verb](config, folder, overwrite)
    except UserError as error:
        return Result(one, metrics, str(error))
    except Exception as error:  # one run out of memory must not cost the night
        _LOG.exception("run %s", one.name)
        return Result(one, metrics, f"{type(error).__name__}: {error}")
    return Result(one, metrics)
