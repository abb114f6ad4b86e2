"""Turns the weights of config.model.pretrained into a checkpoint.

Leaves checkpoints/ in the workdir. extract, search and evaluate find it there; elsewhere
--config.model.checkpoint=WORKDIR names it, also for train, which then starts from it.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)


def run(values: flags.FlagValues) -> None:
    """Converts and says where the checkpoint is."""
    from delg_jax.training.conversion import convert_weights

    print(convert_weights(values.config, values.workdir, values.overwrite))
