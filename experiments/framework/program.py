"""The program of a table: its flags, and a run from trainings to the written table."""

import ast
import dataclasses
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from delg_jax.cli import arguments, download
from delg_jax.errors import UserError
from delg_jax.sweeps import sweep
from experiments.framework import dry_run, published, runs, table_cells
from experiments.framework.experiment import Experiment
from experiments.framework.paper_table import PaperTable
from experiments.framework.plan import Options


def define_flags(experiment: Experiment, values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of one table."""
    del argv
    sizes = list(experiment.sizes)
    flags.DEFINE_enum("size", sizes[-1], sizes, "Scale of the experiment.", flag_values=values)
    arguments.define_path(values, "workdir", None, "Folder of networks and features.")
    flags.mark_flag_as_required("workdir", flag_values=values)
    arguments.define_path(values, "data", "", "Folder of data sets; not needed for quick.")
    arguments.define_path(values, "weights", "", "Folder of weights; not needed for quick.")
    flags.DEFINE_multi_integer("seed", [0], "Seed of a run; may be repeated.", flag_values=values)
    text = "field=value to change in all runs; may be repeated."
    flags.DEFINE_multi_string("set", [], text, flag_values=values)
    text = "Data sets to evaluate, separated by commas; empty for all."
    flags.DEFINE_list("datasets", [], text, flag_values=values)
    text = "Delete outputs of another configuration instead of refusing them."
    flags.DEFINE_boolean("overwrite", False, text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Folder of the table.")
    text = "Print trainings, images, epochs, bytes and hours; run nothing."
    flags.DEFINE_boolean("plan", False, text, flag_values=values)
    text = "Download what --data and --weights lack and programs can have, then run."
    flags.DEFINE_boolean("download", False, text, flag_values=values)
    text = "With --download: print what would be downloaded, and do nothing."
    flags.DEFINE_boolean("dry_run", False, text, flag_values=values)
    download.define_parallel(values)


def planned(experiment: Experiment, values: flags.FlagValues) -> bool:
    """With --plan, prints what the experiment would take, from the rates in --results."""
    if not values.plan:
        return False
    chosen = options(values)
    folders = {"data": chosen.data or "DATA", "weights": chosen.weights or "WEIGHTS"}
    chosen = dataclasses.replace(chosen, **folders)
    rates = dry_run.Rates(pathlib.Path(values.results))
    print(dry_run.table(experiment, chosen, dry_run.steps(experiment, chosen, rates)), end="")
    return True


def run(experiment: Experiment, values: flags.FlagValues) -> PaperTable | None:
    """Runs, writes and prints one table; a UserError at the end names failed runs.

    Returns:
      The table; None after a plan or a dry run.
    """
    if planned(experiment, values):
        return None
    chosen = options(values)
    if values.dry_run and not values.download:
        raise UserError("--dry_run", True, "belongs to --download")
    if values.download:
        published.download(experiment, chosen, values.parallel, values.dry_run)
        if values.dry_run:
            return None
    _enable_compilation_cache(chosen.workdir)
    results, trained = runs.execute(experiment, chosen)
    all_runs = [*trained, *results.values()]
    failures = [f"{result.run.name} ({result.error})" for result in all_runs if result.error]
    cells = table_cells.read(experiment, results, chosen)
    table = PaperTable(experiment, chosen, cells, failures)
    table.write(pathlib.Path(values.results))
    print(table.markdown(), end="")
    sweep.require_success(all_runs)
    return table


def options(values: flags.FlagValues) -> Options:
    """Returns the values of the flags.

    Raises:
      UserError: for a field without a value, or one given twice.
    """
    changes: dict[str, Any] = {}
    for text in values.set:
        path, equals, value = text.partition("=")
        if not equals or path in changes:
            raise UserError("--set", text, "must be field=value, each field once")
        changes[path] = _literal(value)
    return Options(
        values.size,
        pathlib.Path(values.workdir),
        values.data,
        values.weights,
        tuple(values.seed),
        changes,
        tuple(values.datasets),
        values.overwrite,
    )


def _enable_compilation_cache(workdir: pathlib.Path) -> None:
    """Caches compiled programs, because rows run the same network again and again."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def program(experiment: Experiment) -> tuple[Callable, Callable]:
    """Returns `define_flags` and `run` of one table, for the module of its program."""
    return functools.partial(define_flags, experiment), functools.partial(run, experiment)
