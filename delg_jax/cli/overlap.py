"""Finds training images that show what test pictures show, so that a training can leave them out.

    delg extract --config=photos --config.data.root=TRAIN --workdir=TRAIN_STORE
    delg overlap TRAIN_STORE QUERIES --output=OUT
    delg train --config.data.exclude=OUT/exclude.txt ...

TRAIN_STORE is a workdir with features of the training images, or the store in it. QUERIES are the
test pictures: a folder, glob, list, tar or picture, as --images of delg extract takes them. Each
searches the training images, and the geometry of the first of its ranking is verified. Writes
overlap.csv (test picture, training image, inliers), overlap.html (pictures with their inliers) and
exclude.txt, for config.data.exclude. A landmark: line in that file leaves out a whole landmark.
"""

import pathlib

from absl import flags

from delg_jax.cli import arguments, stored_config
from delg_jax.configuration import local_path
from delg_jax.errors import UserError

POSITIONAL = "TRAIN_STORE QUERIES"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_path(values, "output", "overlap", "Folder to write.")
    text = "Search and re-ranking that find candidates, one of those of delg search."
    flags.DEFINE_string("method", "local+sp", text, flag_values=values)
    text = "Training images whose geometry is verified, for each test picture."
    flags.DEFINE_integer("candidates", 50, text, 1, flag_values=values)
    text = "Least inliers of an overlap; 0 takes config.rerank.sp.min_inliers."
    flags.DEFINE_integer("min_inliers", 0, text, 0, flag_values=values)
    text = "Overlaps with pictures in the report, those with the most inliers first."
    flags.DEFINE_integer("pictures", 100, text, 0, flag_values=values)
    words = arguments.words_of(values, argv)
    tree = stored_config.read(_workdir(local_path("TRAIN_STORE", words[0]))) if words else None
    arguments.define_config(values, argv, "photos", tree)


def _workdir(folder: str) -> pathlib.Path:
    """The workdir of a store in it; other folders stay as they are."""
    path = pathlib.Path(folder)
    return path.parents[1] if (path / "store.json").is_file() and len(path.parents) > 1 else path


def run(values: flags.FlagValues, *names: str) -> None:
    """Searches, verifies and writes."""
    from delg_jax.reports import overlaps

    if len(names) != 2:
        raise UserError("delg overlap", " ".join(names), f"must be {POSITIONAL}")
    written = overlaps.write_overlaps(
        values.config,
        _workdir(names[0]),
        names[1],
        values.output,
        values.method,
        values.candidates,
        values.min_inliers,
        values.pictures,
    )
    print(f"{written.queries} test pictures, {written.skipped} of them unreadable")
    print(f"{written.shown} show what {written.images} training images show: {values.output}")
