"""Extracts features of the database and queries, or of any images, into the workdir.

    delg extract --config=FILE --workdir=DIR
    delg extract --config=FILE --workdir=DIR --images='photos/**/*.jpg'

Writes features/database and features/queries, or features/images; skipped.csv in each lists the
images that could not be read. The network comes from checkpoints/ in the workdir, from
config.model.checkpoint, or from config.model.pretrained. The same command resumes a stopped run.

--images takes a folder, a quoted glob, a .txt list of files, or an uncompressed .tar. Run again
with more images, it adds them.

On many machines, run the same command once per process, with a shared workdir (see `delg train`
for how processes find each other); or run it once with --runner, and Apache Beam distributes the
images over its workers.
"""

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_common(values, argv)
    arguments.define_weights(values)
    arguments.define_processes(values)
    text = "Folder, glob, .txt list or .tar of images, instead of the experiment's data."
    arguments.define_path(values, "images", None, text)
    text = "Delete images from the store that are no longer in --images."
    flags.DEFINE_boolean("delete_missing", False, text, flag_values=values)
    text = 'Runner and options of Apache Beam, e.g. "DirectRunner --direct_num_workers=4".'
    flags.DEFINE_string("runner", None, text, flag_values=values)


def run(values: flags.FlagValues) -> None:
    """Extracts and prints the paths of the stores."""
    from delg_jax import distributed
    from delg_jax.features import extract
    from delg_jax.features.experiment import extract_images

    arguments.use_weights(values)
    if values.images == "" or values.runner == "":
        name = "images" if values.images == "" else "runner"
        raise UserError(f"--{name}", "", "must not be empty")
    if values.delete_missing and not values.images:
        raise UserError("--delete_missing", True, "needs --images")
    runner = values.runner or ""
    with arguments.processes(values):
        if values.images:
            store = extract_images(
                values.config,
                values.workdir,
                values.images,
                values.overwrite,
                values.delete_missing,
                runner,
            )
            stores = [store]
        else:
            extracted = extract(values.config, values.workdir, values.overwrite, runner)
            stores = [extracted.database, extracted.queries]
        if distributed.is_first():
            for store in filter(len, stores):  # there may be no queries
                print(f"{store.folder}: {len(store)} images, {len(store.skipped())} skipped")
