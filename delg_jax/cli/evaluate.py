"""Ranks the database for every query by each of config.eval.methods and prints the metrics.

Writes metrics.json and rankings.npz in the workdir. Missing features and indices are made first.
After a change of config.rerank, --overwrite ranks again and reuses the features.

On many machines, run the same command once per process, with a shared workdir (see `delg train`
for how processes find each other): they share extraction and graphs, and the first one ranks.
"""

from absl import flags

from delg_jax.cli import arguments, stored_config


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv, stored=("evaluation", *stored_config.PLACES))
    arguments.define_weights(values)
    arguments.define_processes(values)


def run(values: flags.FlagValues) -> None:
    """Evaluates and prints tables of all metrics and of confidence intervals."""
    from delg_jax.evaluation import evaluate
    from delg_jax.reports import tables
    from delg_jax.retrieval.ranking import skipped_line

    arguments.use_weights(values)
    with arguments.processes(values):
        result = evaluate(values.config, values.workdir, values.overwrite)
    if not result:  # in processes other than the first
        return
    print(tables.retrieval_table(result))
    for text in (tables.interval_table(result), tables.pairs_line(result), skipped_line(result)):
        if text:
            print("", text, sep="\n")
