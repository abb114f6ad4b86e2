"""Turns the weights of config.model.pretrained into a checkpoint.

config.model.pretrained_source says whose names they bear: torchvision, slim, keras,
delg_savedmodel or delg_pytorch. Files may be .npz, .safetensors, .h5, .pth, a TensorFlow
checkpoint or the folder of a SavedModel. PyTorch and TensorFlow read their own files:
pip install 'delg_jax[convert]'.

Leaves checkpoints/ in the workdir. extract, search and evaluate find it there; elsewhere
--config.model.checkpoint=WORKDIR names it, also for train, which then starts from it.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_path(
        values,
        "mapping",
        "",
        "JSON file of our variables to theirs, for what the names leave open; the same as "
        "--config.model.pretrained_mapping.",
    )


def run(values: flags.FlagValues) -> None:
    """Converts and says where the checkpoint is."""
    from delg_jax.training.convert import convert_weights

    config = values.config
    if values.mapping:
        config.model.pretrained_mapping = values.mapping
    print(convert_weights(config, values.workdir, values.overwrite))
