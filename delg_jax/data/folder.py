"""The folder data set: `ROOT/<split>/<label>/*.jpg`."""

import pathlib

import ml_collections
import numpy as np

from delg_jax.data.sources import FileSource, TrainingData
from delg_jax.errors import UserError

SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff")


def training(data: ml_collections.ConfigDict) -> TrainingData:
    """Lists the folders `train` and `validation` under `config.data.root`.

    Classes are the folders of `train`, sorted by name. Labels of validation images are those of
    train; a folder that only validation has is an error.

    Args:
      data: the `config.data` tree.

    Returns:
      TrainingData.

    Raises:
      UserError: if a folder is absent, empty, or not a class.
    """
    root = existing_root(data)
    classes = sorted(path.name for path in _split(root, "train").iterdir() if path.is_dir())
    if not classes:
        raise UserError("config.data.root", str(root), "must have folders of images in train/")
    return TrainingData(
        train=_source(root, "train", classes),
        validation=_source(root, "validation", classes),
        classes=classes,
    )


def existing_root(data: ml_collections.ConfigDict) -> pathlib.Path:
    """Returns `config.data.root`; raises a UserError if it is not a folder."""
    root = pathlib.Path(data.root)
    if not data.root or not root.is_dir():
        raise UserError("config.data.root", data.root, "must be an existing folder")
    return root.resolve()


def _split(root: pathlib.Path, split: str) -> pathlib.Path:
    folder = root / split
    if not folder.is_dir():
        raise UserError("config.data.root", str(root), f"must have a folder {split}/")
    return folder


def _source(root: pathlib.Path, split: str, classes: list[str]) -> FileSource:
    folder = _split(root, split)
    unknown = sorted(p.name for p in folder.iterdir() if p.is_dir() and p.name not in classes)
    if unknown:
        rule = f"has no folder of that name in train/: {', '.join(unknown[:8])}"
        raise UserError("config.data.root", str(folder), rule)
    names, labels = [], []
    for label, name in enumerate(classes):
        for path in sorted((folder / name).glob("*")):
            if path.suffix.lower() in SUFFIXES:
                names.append(f"{name}/{path.name}")
                labels.append(label)
    if not names:
        raise UserError("config.data.root", str(folder), "must contain images")
    return FileSource(folder, names, np.asarray(labels, np.int64))
