"""The flags that the tables of `experiments` share, and what they do."""

import ast
import functools
import pathlib
from collections.abc import Callable
from typing import Any

import jax
from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError
from delg_jax.sweeps import sweep
from experiments.framework import runs, table_cells
from experiments.framework.experiment import Experiment
from experiments.framework.paper_table import PaperTable
from experiments.framework.plan import Options


def define_flags(experiment: Experiment, values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags of one table."""
    del argv
    sizes = list(experiment.sizes)
    flags.DEFINE_enum("size", sizes[-1], sizes, "How large it is run.", flag_values=values)
    arguments.define_path(values, "workdir", None, "Folder of networks and features.")
    flags.mark_flag_as_required("workdir", flag_values=values)
    arguments.define_path(values, "data", "", "Folder of data sets; quick needs none.")
    arguments.define_path(values, "weights", "", "Folder of weights; quick needs none.")
    flags.DEFINE_multi_integer("seed", [0], "Seed of a run; may be repeated.", flag_values=values)
    text = "field=value, changed in all runs; may be repeated."
    flags.DEFINE_multi_string("set", [], text, flag_values=values)
    text = "Data sets to evaluate, with commas; all if empty."
    flags.DEFINE_list("datasets", [], text, flag_values=values)
    text = "Delete artefacts of another configuration instead of refusing to touch them."
    flags.DEFINE_boolean("overwrite", False, text, flag_values=values)
    arguments.define_path(values, "results", "experiments/results", "Of the table.")


def run(experiment: Experiment, values: flags.FlagValues) -> PaperTable:
    """Runs one table, writes it and prints it; a UserError at the end names runs that failed."""
    chosen = options(values)
    _keep_compiled(chosen.workdir)
    results, trained = runs.execute(experiment, chosen)
    every = [*trained, *results.values()]
    failures = [f"{result.run.name} ({result.error})" for result in every if result.error]
    cells = table_cells.read(experiment, results, chosen)
    table = PaperTable(experiment, chosen, cells, failures)
    table.write(pathlib.Path(values.results))
    print(table.markdown(), end="")
    sweep.require_success(every)
    return table


def options(values: flags.FlagValues) -> Options:
    """What the flags say.

    Raises:
      UserError: for a field without a value, or one that occurs twice.
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


def _keep_compiled(workdir: pathlib.Path) -> None:
    """Rows run one network again and again: what is compiled for one serves the others."""
    if not jax.config.jax_compilation_cache_dir:
        jax.config.update("jax_compilation_cache_dir", str(workdir.resolve() / "compiled"))
        jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.2)


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text


def program(experiment: Experiment) -> tuple[Callable, Callable]:
    """`define_flags` and `run` of one table, as `run_experiment` wants them of a module."""
    return functools.partial(define_flags, experiment), functools.partial(run, experiment)
