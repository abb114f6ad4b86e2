"""Sweeps: many runs of one configuration with a few fields changed, each in its own folder."""

import dataclasses
import logging
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from delg_jax import configuration, system_errors
from delg_jax import workdir as artefacts
from delg_jax.compilation_cache import release_if_many
from delg_jax.errors import UserError, require_choice
from delg_jax.evaluation.evaluate import evaluate
from delg_jax.features.storage.lock import exclusive
from delg_jax.sweeps import run_record
from delg_jax.sweeps.run_record import BEGUN, FAILED, FINISHED, Record
from delg_jax.training.train import train_and_evaluate

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


def run(
    base: ml_collections.ConfigDict,
    runs: Sequence[Run],
    workdir: str | pathlib.Path,
    overwrite: bool = False,
) -> list[Result]:
    """Does all runs, one after the other; a run that fails does not stop the others.

    Called again, it leaves out the runs that are finished and goes on with the others where they
    stopped. `sweep.json` is written after each run.

    Args:
      base: the configuration that runs change.
      runs: see `Run`.
      workdir: gets a folder for each run, and `sweep.json`.
      overwrite: whether artefacts of another configuration are deleted instead of refused.

    Returns:
      A result for each run, in their order.

    Raises:
      UserError: before the first run, for names that occur twice, a field or verb that does not
        exist, or a finished run of another configuration.
    """
    root = pathlib.Path(workdir)
    configs = check(base, runs, root, overwrite)
    results: list[Result] = []
    for number, (one, config) in enumerate(zip(runs, configs, strict=True), start=1):
        _LOG.info("run %d/%d: %s", number, len(runs), one.name)
        results.append(run_one(one, config, root / one.name, overwrite))
        write(root, results)
    return results


def check(
    base: ml_collections.ConfigDict, runs: Sequence[Run], root: pathlib.Path, overwrite: bool
) -> list[ml_collections.ConfigDict]:
    """Finds what is wrong with runs before the first one, and returns their configurations.

    Args:
      base: the configuration that runs change.
      runs: all of the sweep.
      root: its working directory.
      overwrite: whether a finished run of another configuration is no mistake.

    Raises:
      UserError: as `run`.
    """
    configs = [configuration.override(base, one.overrides) for one in runs]
    names = [one.name for one in runs]
    for one, config in zip(runs, configs, strict=True):
        if names.count(one.name) > 1:
            raise UserError("sweep", one.name, "is the name of two runs")
        for verb in one.verbs:
            require_choice("--verbs", verb, tuple(VERBS))
        if not overwrite:
            run_record.require_unchanged(root / one.name, Record.begin(config, one.verbs))
    return configs


def run_one(
    one: Run, config: ml_collections.ConfigDict, folder: pathlib.Path, overwrite: bool = False
) -> Result:
    """Does one run, unless it is finished, and records it in its folder.

    Args:
      one: the run.
      config: with its overrides.
      folder: of its artefacts.
      overwrite: whether artefacts of another configuration are deleted instead of refused.

    Returns:
      What became of it; whatever a verb raised is its error.

    Raises:
      KeyboardInterrupt: if a verb was asked to stop and has saved what it had.
    """
    try:
        with exclusive(folder, "run"):
            wanted = Record.begin(config, one.verbs)
            known = finished(one, wanted, folder)
            return known or _done(one, wanted, config, folder, overwrite)
    except (UserError, OSError) as error:  # another job does it, or nothing can be written
        return Result(one, {}, str(error))


def finished(one: Run, wanted: Record, folder: pathlib.Path) -> Result | None:
    """The result of a run that is finished with this configuration and these verbs, if it is."""
    found = run_record.read(folder)
    if found is None or found.status != FINISHED or not found.is_of(wanted):
        return None
    return Result(one, dict(found.metrics))


def _done(
    one: Run,
    record: Record,
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    overwrite: bool,
) -> Result:
    """Does the verbs; the record tells at any time which are done."""
    metrics: dict[str, Any] = {}
    error = ""
    try:
        record.write(folder)
        for verb in one.verbs:
            metrics[verb] = VERBS[verb](config, folder, overwrite)
            record = dataclasses.replace(record, metrics=metrics)
            record.write(folder)
    except SystemExit as stopped:  # training ends like this after SIGTERM and a checkpoint
        raise KeyboardInterrupt from stopped
    except UserError as mistake:
        error = str(mistake)
    except Exception as problem:  # one run out of memory must not cost the night
        shortage = system_errors.explain(problem)
        error = str(shortage or f"{type(problem).__name__}: {problem}")
        if shortage is None:
            _LOG.exception("run %s", one.name)
    dataclasses.replace(record, status=FAILED if error else FINISHED, error=error).write(folder)
    release_if_many()
    return Result(one, metrics, error)


def gather(
    base: ml_collections.ConfigDict, runs: Sequence[Run], root: pathlib.Path
) -> tuple[list[Result], list[str]]:
    """Reads what became of the runs so far; other jobs may still be at work.

    Args:
      base: the configuration that runs change.
      runs: all of the sweep.
      root: its working directory.

    Returns:
      A result for each run, in their order, and the names of those that neither finished nor
      failed; their errors say why.
    """
    results, missing = [], []
    for one, config in zip(runs, check(base, runs, root, overwrite=True), strict=True):
        found = run_record.read(root / one.name)
        if found is None:
            why = "not begun"
        elif not found.is_of(Record.begin(config, one.verbs)):
            why = "of another configuration or other verbs"
        elif found.status == BEGUN:
            why = "begun"
        else:
            results.append(Result(one, dict(found.metrics), found.error))
            continue
        missing.append(one.name)
        results.append(Result(one, {}, why))
    return results, missing


def write(root: pathlib.Path, results: Sequence[Result], missing: Sequence[str] = ()) -> None:
    """Writes `sweep.json`.

    Args:
      root: working directory of the sweep.
      results: of its runs.
      missing: names of those that neither finished nor failed.
    """
    content = {"runs": [dataclasses.asdict(r) for r in results], "missing": list(missing)}
    artefacts.write_json(root / "sweep.json", content)


def require_success(results: Sequence[Result]) -> None:
    """Raises a UserError that names the runs that failed, if any did."""
    failed = [f"{result.run.name} ({result.error})" for result in results if result.error]
    if failed:
        raise UserError("sweep", f"{len(failed)} of {len(results)} runs", "; ".join(failed))
