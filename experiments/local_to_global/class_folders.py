r"""Makes a retrieval data set of a classification data set.

    python -m experiments.local_to_global.class_folders --root=ROOT --output=DIR

ROOT holds train/LABEL/*.jpg and validation/LABEL/*.jpg. The photographs of train are the database,
those of validation the queries, whole; the positives of a query are all photographs of its class.
DIR gets links to them in jpg/, and gnd_classes.json, in which the class is the landmark of a query.
`delg evaluate --config.data.name=revisited --config.data.root=DIR` reads it.
"""

import pathlib
import sys
from typing import Any

from absl import flags

from delg_jax import file_names, workdir
from delg_jax.cli import arguments
from delg_jax.cli.main import run_experiment
from delg_jax.data import images
from delg_jax.data.folder import labelled
from delg_jax.errors import UserError


def ground_truth(
    train: list[tuple[str, str]], validation: list[tuple[str, str]], folder: pathlib.Path
) -> dict[str, Any]:
    """The ground truth in the form of the Revisited sets.

    Args:
      train: name and label of each database image.
      validation: name and label of each query; queries of a label without database images are
        left out.
      folder: of the queries, whose sizes are read.

    Returns:
      A dict of `imlist`, `qimlist` and `gnd`; positives are `easy`.
    """
    positives: dict[str, list[int]] = {}
    for number, (_, label) in enumerate(train):
        positives.setdefault(label, []).append(number)
    queries = [(name, label) for name, label in validation if label in positives]
    entries = []
    for name, label in queries:
        picture = images.decode(file_names.to_path(folder, name).read_bytes())
        height, width = picture.shape[:2]
        entry = {"bbx": [0, 0, width, height], "easy": positives[label], "hard": [], "junk": []}
        entries.append(entry | {"landmark": label})
    return {
        "imlist": [f"train/{name}" for name, _ in train],
        "qimlist": [f"validation/{name}" for name, _ in queries],
        "gnd": entries,
    }


def define_flags(values: flags.FlagValues, argv: list[str]) -> None:
    """Defines the flags."""
    del argv
    arguments.define_path(values, "root", "", "Folder with train/ and validation/.")
    arguments.define_path(values, "output", "", "Folder to write.")


def run(values: flags.FlagValues) -> None:
    """Writes links and the ground truth."""
    root, output = pathlib.Path(values.root), pathlib.Path(values.output)
    for flag, value in (("--root", values.root), ("--output", values.output)):
        if not value:
            raise UserError(flag, value, "must name a folder")
    splits = {}
    for split in ("train", "validation"):
        if not (root / split).is_dir():
            raise UserError("--root", values.root, f"must be a folder with {split}/")
        splits[split] = labelled(root / split)
    truth = ground_truth(splits["train"], splits["validation"], root / "validation")
    jpg = output / "jpg"
    jpg.mkdir(parents=True, exist_ok=True)
    for split in splits:
        link = jpg / split
        if not link.is_symlink():
            link.symlink_to((root / split).resolve(), target_is_directory=True)
    workdir.write_json(output / "gnd_classes.json", truth)
    print(f"{len(truth['imlist'])} images, {len(truth['qimlist'])} queries")


if __name__ == "__main__":
    sys.exit(run_experiment(sys.modules[__name__], sys.argv[1:]))
