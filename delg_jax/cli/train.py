"""Trains whitening, classifiers, attention and autoencoder, and the backbone unless frozen.

Leaves checkpoints/, logs/metrics.jsonl and train_metrics.json in the workdir. Called again, it
goes on at the latest checkpoint.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.reports import tables


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)


def run(values: flags.FlagValues) -> None:
    """Trains and prints the last metrics."""
    from delg_jax.training.loop import train_and_evaluate

    metrics = train_and_evaluate(values.config, values.workdir, values.overwrite)
    print(tables.training_table(metrics))
