"""Trains whitening, classifiers, attention and autoencoder, and the backbone unless frozen.

Leaves checkpoints/, logs/metrics.jsonl and train_metrics.json in the workdir. Called again, it
goes on at the latest checkpoint; SIGTERM makes it save one and end with status 0.

On many machines, the same command runs once in each process, with --coordinator, --num_processes
and --process_id, and a workdir that all of them share. JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES
and JAX_PROCESS_ID stand in for flags that are not given.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.reports import tables


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_processes(values)


def run(values: flags.FlagValues) -> None:
    """Trains and prints the last metrics."""
    from delg_jax import distributed
    from delg_jax.training.train import train_and_evaluate

    distributed.initialize(values.coordinator, values.num_processes, values.process_id)
    metrics = train_and_evaluate(values.config, values.workdir, values.overwrite)
    if distributed.is_first():
        print(tables.training_table(metrics))
