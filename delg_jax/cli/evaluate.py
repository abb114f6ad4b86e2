"""Ranks the database for every query by each of config.eval.methods and prints the tables.

Leaves metrics.json and rankings.npz in the workdir, and features and index first if they are not
there; a changed re-ranking with --overwrite uses the features again.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.reports import tables


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)


def run(values: flags.FlagValues) -> None:
    """Evaluates and prints the tables: all metrics, and how sure the first of them is."""
    from delg_jax.evaluation import evaluate
    from delg_jax.retrieval import skipped

    result = evaluate(values.config, values.workdir, values.overwrite)
    print(tables.retrieval_table(result))
    for text in (tables.interval_table(result), tables.pairs_line(result), skipped.line(result)):
        if text:
            print("", text, sep="\n")
