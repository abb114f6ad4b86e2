"""Prepares the data set of an experiment: checks every image and stores them for fast access.

    delg prepare --config=delg_r50_gld --config.data.name=gldv2_clean --config.data.root=DIR
    delg prepare --config=FILE --config.data.beam_options='--runner=DirectRunner
        --direct_num_workers=16 --direct_running_mode=multi_processing'

Writes to config.data.tfds_dir. The other verbs prepare what is missing, too; on a cluster, do it
beforehand, on a machine without accelerators or with Apache Beam on many. What is prepared already
is compared with its files. Data sets that are read in place (folder, revisited) are only checked.
"""

from absl import flags

from delg_jax.cli import arguments


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_config(values, argv)
    arguments.define_processes(values)
    text = "What the images are for: training or retrieval. By default training, if there are any "
    text += "training images."
    flags.DEFINE_enum("purpose", None, ["training", "retrieval"], text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Prepares the data and prints how many images there are."""
    from delg_jax import distributed
    from delg_jax.data import IN_PLACE, TrainingData, prepare

    data = values.config.data
    with arguments.processes(values):
        found = prepare(data, values.purpose or "")
        if not distributed.is_first():
            return
    if isinstance(found, TrainingData):
        counts = f"{len(found.train)} training images of {len(found.classes)} classes, "
        counts += f"{len(found.validation)} validation images"
    else:
        counts = f"{len(found.database)} database images, {len(found.queries)} queries"
    place = "read in place" if data.name in IN_PLACE else "prepared"
    print(f"{data.name}: {counts}, {place}")
