"""Sweeps: many runs of one configuration with a few fields changed, each in its own folder."""

import dataclasses
import logging
import pathlib
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

import ml_collections

from delg_jax import configuration, system_errors
from delg_jax import workdir as outputs
from delg_jax.compilation_cache import release_if_many
from delg_jax.errors import UserError, require_choice
from delg_jax.evaluation.experiment import evaluate
from delg_jax.locks import exclusive
from delg_jax.sweeps import run_record
from delg_jax.sweeps.run_record import BEGUN, FAILED, FINISHED, Record
from delg_jax.training.train import train_and_evaluate
from delg_jax.workdir import root_of

_LOG = logging.getLogger(__name__)

VERBS = {"train": train_and_evaluate, "evaluate": evaluate}


@dataclasses.dataclass(frozen=True)
class Run:
    """One run of a sweep.

    Attributes:
      name: its folder in the workdir of the sweep.
      overrides: values of configuration fields by dotted path.
      verbs: run in this order; keys of `VERBS`.
      group: shared by runs that differ only in their seeds; a row of the table.
    """

    name: str
    overrides: Mapping[str, Any]
    verbs: tuple[str, ...]
    group: str


@dataclasses.dataclass(frozen=True)
class Result:
    """The outcome of a run.

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
    """Runs all, one after the other; a run that fails does not stop the others.

    Called again, it reuses the runs that are finished and resumes the others. A run whose data
    changed since is repeated; one whose weights changed is refused. `sweep.json` is written after
    each run.

    Args:
      base: the configuration that runs change.
      runs: see `Run`.
      workdir: gets a folder for each run, and `sweep.json`.
      overwrite: whether outputs of another configuration are deleted instead of refused.

    Returns:
      A result for each run, in their order.

    Raises:
      UserError: before the first run, for names that occur twice, a field or verb that does not
        exist, a finished run of another configuration, or a run from other weights.
    """
    root = root_of(workdir)
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
    """Checks all runs before the first one starts, and returns their configurations.

    Args:
      base: the configuration that runs change.
      runs: all of the sweep.
      root: workdir of the sweep.
      overwrite: whether a finished run of another configuration is accepted.

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
    one: Run,
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    overwrite: bool = False,
    patience: float = 0.0,
) -> Result:
    """Runs one run, unless it is finished, and records it in its folder.

    Args:
      one: the run.
      config: with its overrides.
      folder: of its outputs.
      overwrite: whether outputs of another configuration are deleted instead of refused.
      patience: seconds that another job may still do the same run.

    Returns:
      The outcome; an exception of a verb is its error.

    Raises:
      KeyboardInterrupt: if a verb was asked to stop and has saved its state.
    """
    try:
        with exclusive(folder, "run", patience):
            wanted = Record.begin(config, one.verbs)
            if result := finished(one, wanted, folder):
                return result
            if overwrite:
                _clear_if_from_other_weights(folder)
            return _run_verbs(one, wanted, config, folder, overwrite)
    except (UserError, OSError) as error:  # another job holds it, or nothing can be written
        return Result(one, {}, str(error))


def finished(one: Run, wanted: Record, folder: pathlib.Path) -> Result | None:
    """The result of a run if it is finished, with this configuration, these verbs and sources."""
    found = run_record.read(folder)
    if found is None or found.status != FINISHED or not found.is_of(wanted):
        return None
    if changed := found.changed_sources():
        _LOG.info("%s: repeated, because %s changed", folder, ", ".join(changed))
        return None
    return Result(one, dict(found.metrics))


def _clear_if_from_other_weights(folder: pathlib.Path) -> None:
    """Deletes the outputs of a run whose weights changed: training would resume from them."""
    found = run_record.read(folder)
    if found is None or not found.changed_weights():
        return
    for path in folder.iterdir():
        if path.is_dir() and not path.is_symlink():
            shutil.rmtree(path)
        elif path.name != run_record.LOG:
            path.unlink()


def _run_verbs(
    one: Run,
    record: Record,
    config: ml_collections.ConfigDict,
    folder: pathlib.Path,
    overwrite: bool,
) -> Result:
    """Runs the verbs; the record always says which are finished."""
    metrics: dict[str, Any] = {}
    error = ""
    try:
        record = dataclasses.replace(record, sources=run_record.source_digests(record.config))
        record.write(folder)
        for verb in one.verbs:
            metrics[verb] = VERBS[verb](config, folder, overwrite)
            record = dataclasses.replace(record, metrics=metrics)
            record.write(folder)
    except SystemExit as stopped:  # training exits after SIGTERM and a checkpoint
        raise KeyboardInterrupt from stopped
    except UserError as found:
        error = str(found)
    except Exception as problem:  # one run out of memory must not end the sweep
        explained = system_errors.explain(problem)
        error = str(explained or f"{type(problem).__name__}: {problem}")
        if explained is None:
            _LOG.exception("run %s", one.name)
    dataclasses.replace(record, status=FAILED if error else FINISHED, error=error).write(folder)
    release_if_many()
    return Result(one, metrics, error)


def gather(
    base: ml_collections.ConfigDict, runs: Sequence[Run], root: pathlib.Path
) -> tuple[list[Result], list[str]]:
    """Reads the results so far, also while other jobs are still running.

    Args:
      base: the configuration that runs change.
      runs: all of the sweep.
      root: workdir of the sweep.

    Returns:
      A result for each run, in their order, and the names of those that neither finished nor
      failed, whose errors say why.
    """
    results, missing = [], []
    for one, config in zip(runs, check(base, runs, root, overwrite=True), strict=True):
        found = run_record.read(root / one.name)
        if found is None:
            why = "not started"
        elif not found.is_of(Record.begin(config, one.verbs)):
            why = "of another configuration or other verbs"
        elif changed := found.changed_sources():
            why = f"out of date: {', '.join(changed)} changed"
        elif found.status == BEGUN:
            why = "not finished"
        else:
            results.append(Result(one, dict(found.metrics), found.error))
            continue
        missing.append(one.name)
        results.append(Result(one, {}, why))
    return results, missing


def write(root: pathlib.Path, results: Sequence[Result], missing: Sequence[str] = ()) -> None:
    """Writes `sweep.json`.

    Args:
      root: workdir of the sweep.
      results: of its runs.
      missing: names of those that neither finished nor failed.
    """
    content = {"runs": [dataclasses.asdict(r) for r in results], "missing": list(missing)}
    outputs.write_json(root / "sweep.json", content)


def require_success(results: Sequence[Result]) -> None:
    """Raises a UserError that names the runs that failed, if any did."""
    failed = [f"{result.run.name} ({result.error})" for result in results if result.error]
    if failed:
        raise UserError("sweep", f"{len(failed)} of {len(results)} runs", "; ".join(failed))
