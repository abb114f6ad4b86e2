"""Extracts the features of database and queries, or of any images, into the workdir.

    delg extract --config=FILE --workdir=DIR
    delg extract --config=FILE --workdir=DIR --images='photos/**/*.jpg'

Leaves features/database and features/queries, or features/images, each with skipped.csv where
images were bad. Uses the network of the workdir's checkpoints/, of config.model.checkpoint, or
config.model.pretrained. Called again, it goes on where it stopped.

--images takes a folder, a glob in quotes, a .txt list of files, or an uncompressed .tar. Called
again with more images, it adds them.

On many machines, the same command runs once in each process, with --coordinator, --num_processes
and --process_id (or JAX_COORDINATOR_ADDRESS, JAX_NUM_PROCESSES and JAX_PROCESS_ID), and a workdir
that all share; or once with --runner, and Apache Beam spreads it over its workers.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_processes(values)
    text = "Folder, glob, .txt list or .tar of images, instead of the experiment's data."
    arguments.define_path(values, "images", None, text)
    text = "Delete from the store what --images no longer names."
    flags.DEFINE_boolean("delete_missing", False, text, flag_values=values)
    text = 'Options of an Apache Beam pipeline, as "DirectRunner --direct_num_workers=4".'
    flags.DEFINE_string("runner", None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Extracts and says where the stores are."""
    from delg_jax import distributed
    from delg_jax.features import extract
    from delg_jax.features.extract import extract_images

    if values.images == "" or values.runner == "":
        name = "images" if values.images == "" else "runner"
        raise UserError(f"--{name}", "", "must not be empty")
    if values.delete_missing and not values.images:
        raise UserError("--delete_missing", True, "needs --images")
    distributed.initialize(values.coordinator, values.num_processes, values.process_id)
    runner = values.runner or ""
    if values.images:
        stores = [
            extract_images(
                values.config,
                values.workdir,
                values.images,
                values.overwrite,
                values.delete_missing,
                runner,
            )
        ]
    else:
        stores = extract(values.config, values.workdir, values.overwrite, runner)[1:3]
    if distributed.is_first():
        for store in stores:
            print(f"{store.folder}: {len(store)} images, {len(store.skipped())} skipped")
