"""Converts the weights in --weights or config.model.pretrained to a checkpoint.

config.model.pretrained_source is the naming scheme of the weights: torchvision, slim, keras,
delg_savedmodel, delg_pytorch, efficientnet, dinov2 or siglip; if it is empty, it is found from the
names in the file. The file may be .npz, .safetensors, .h5, .pth, a TensorFlow checkpoint or the
folder of a SavedModel. TensorFlow's files need its library: pip install 'delg_jax[convert]'.

Writes checkpoints/ in the workdir, where extract, search and evaluate find it. To use it from
another workdir, or to start a training from it, set --config.model.checkpoint=WORKDIR.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv, stored=())
    arguments.define_weights(values)
    arguments.define_path(
        values,
        "mapping",
        "",
        "JSON file that maps our variables to theirs where the names are not enough; the same as "
        "--config.model.pretrained_mapping.",
    )


def run(values: flags.FlagValues) -> None:
    """Converts and prints the path of the checkpoint."""
    from delg_jax.training.convert import convert_weights

    arguments.use_weights(values)
    config = values.config
    if values.mapping:
        config.model.pretrained_mapping = values.mapping
    print(convert_weights(config, values.workdir, values.overwrite))
