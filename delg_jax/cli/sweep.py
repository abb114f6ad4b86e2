"""Trains and evaluates every combination of some values of configuration fields.

    delg sweep --config=FILE --workdir=DIR --grid=train.learning_rate=0.003,0.01 --grid=seed=0,1,2

Leaves a folder for each run and sweep.json in the workdir, and prints a row for each setting: mean
and standard deviation over its seeds, which are all fields named `seed`. Called again, it goes on
where it stopped. If runs fail, the others are done, and the exit status is 2.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    flags.DEFINE_multi_string(
        "grid", None, "field=value,value,...; the sweep is the product of all.", flag_values=values
    )
    flags.mark_flag_as_required("grid", flag_values=values)
    flags.DEFINE_list("verbs", "train,evaluate", "Verbs of each run.", flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Sweeps and prints the table; raises a UserError at the end if a run failed."""
    from delg_jax.evaluation import sweep
    from delg_jax.reports.sweep_tables import sweep_table

    runs = sweep.grid(values.grid, tuple(values.verbs))
    results = sweep.run(values.config, runs, values.workdir, values.overwrite)
    print(sweep_table(results))
    sweep.require_success(results)
