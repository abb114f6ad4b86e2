"""Trains whitening, classifiers, attention and autoencoder, and the backbone unless frozen.

Writes checkpoints/, logs/metrics.jsonl and train_metrics.json in the workdir. The same command
resumes from the latest checkpoint.

On SIGTERM or Ctrl-C it saves a checkpoint within seconds, wherever it is, and exits with status 75
(config.train.interrupted_status), so that a scheduler can tell it from a finished run (0) and an
error (2). In a Slurm script: delg train ... ; [ $? -eq 75 ] && scontrol requeue $SLURM_JOB_ID

After a run diverged, resume it from its last checkpoint with a lower rate:
--config.train.learning_rate=0.003 --config.train.resume_with=train.learning_rate

On many machines, run the same command once per process, with a shared workdir. Slurm (srun), Open
MPI (mpirun), TPU pods and indexed Kubernetes Jobs are found; --cluster=none turns this off. Without
one, give --coordinator, --num_processes and --process_id (or JAX_COORDINATOR_ADDRESS,
JAX_NUM_PROCESSES and JAX_PROCESS_ID).
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv, stored=("checkpoints",))
    arguments.define_weights(values)
    arguments.define_processes(values)


def run(values: flags.FlagValues) -> None:
    """Trains and prints the last metrics."""
    from delg_jax import distributed
    from delg_jax.reports import tables
    from delg_jax.training.train import train_and_evaluate

    arguments.use_weights(values)
    with arguments.processes(values, ends_on_sigterm=False):  # it saves a checkpoint first
        metrics = train_and_evaluate(values.config, values.workdir, values.overwrite)
        if distributed.is_first():
            print(tables.training_table(metrics))
