"""Scores global descriptors on ILIAS: mAP@1k among its positives and up to 100M distractors.

    delg extract --config=... --config.data.name=ilias --config.data.root=DIR --workdir=WORK
    delg export --workdir=WORK --format=ames
    delg ilias DIR --queries=WORK/ames/delg_query_global.hdf5 \
        --positives=WORK/ames/delg_gallery_global.hdf5 --distractors=PARTS --output=OUT

DIR holds the lists of the data set in image_ids/. The files, ours or those of other programs, have
the arrays features [N, D] and index [N]. PARTS is a folder of such files; they are read one after
the other, and a run that was stopped resumes after the last one. Writes OUT/ilias.json.
"""

import pathlib

from absl import flags

from delg_jax.cli import arguments
from delg_jax.errors import UserError

POSITIONAL = "DIR"


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the verb's flags."""
    arguments.define_path(values, "queries", None, "HDF5 file of the image queries.")
    arguments.define_path(values, "positives", None, "HDF5 file of the positives.")
    text = "Folder of HDF5 files of distractors; without it, the positives alone are searched."
    arguments.define_path(values, "distractors", None, text)
    text = "Text file of the distractors that count, one id a line; that of mini-ILIAS has 5M."
    arguments.define_path(values, "selected", None, text)
    flags.DEFINE_integer("k", 1000, "Images of a list that count.", 1, flag_values=values)
    arguments.define_path(values, "output", "ilias", "Folder to write.")


def run(values: flags.FlagValues, *names: str) -> None:
    """Searches and prints the metrics."""
    from delg_jax.configuration import local_path
    from delg_jax.evaluation import ilias

    if len(names) != 1:
        raise UserError("delg ilias", " ".join(names), f"must be {POSITIONAL}")
    for name in ("queries", "positives"):
        if not values[name].value:
            raise UserError(f"--{name}", values[name].value, "must be an HDF5 file")
    found = ilias.evaluate_files(
        pathlib.Path(local_path(POSITIONAL, names[0])),
        pathlib.Path(values.queries),
        pathlib.Path(values.positives),
        pathlib.Path(values.distractors) if values.distractors else None,
        pathlib.Path(values.output),
        values.k,
        pathlib.Path(values.selected) if values.selected else None,
    )
    images = found["positives"] + found["distractors"]
    print(f"{found['queries']} queries, {images} images: {values.output}")
    print(f"mAP@{values.k} {found[f'map@{values.k}']:.2f} %, oracle {found['oracle']:.2f} %")
