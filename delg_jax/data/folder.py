"""The folder data set: `ROOT/<split>/<label>/*.jpg`."""

import logging
import os
import pathlib

import numpy as np

from delg_jax import file_names
from delg_jax.data.image_files import LeftOut, images_below, is_hidden
from delg_jax.data.sources import DataSettings, FileSource, TrainingData
from delg_jax.errors import UserError

_MOST_LISTED = 8

_LOG = logging.getLogger(__name__)


def training(data: DataSettings) -> TrainingData:
    """Lists the folders `train` and `validation` under `config.data.root`.

    Classes are the folders of `train` with images, sorted by name. Labels of validation images are
    those of train; a folder of images that only validation has is an error.

    Args:
      data: which data set it is.

    Returns:
      TrainingData.

    Raises:
      UserError: if a folder is absent, empty, cannot be read, or is not a class.
    """
    root = existing_root(data.root)
    train = labelled(_split(root, "train"))
    classes = sorted({label for _, label in train})
    if not classes:
        rule = "must have folders of images in train/" + _of_empty_classes(root / "train")
        raise UserError("config.data.root", str(root), rule)
    validation = labelled(_split(root, "validation"))
    return TrainingData(
        train=_source(root / "train", train, classes),
        validation=_source(root / "validation", validation, classes),
        classes=classes,
    )


def existing_root(root: str) -> pathlib.Path:
    """The folder `config.data.root`; raises a UserError if it is not a folder."""
    folder = pathlib.Path(root)
    if not root or not folder.is_dir():
        raise UserError("config.data.root", root, "must be an existing folder")
    return folder.resolve()


def labelled(root: pathlib.Path) -> list[tuple[str, str]]:
    """All images in the folders of classes, at any depth, see `image_files.images_below`.

    One log line says what is left out; another names the classes without images.

    Args:
      root: folder whose folders are classes.

    Returns:
      Path relative to `root`, and class, of each image; sorted by class, then by path.

    Raises:
      UserError: if a folder cannot be read.
    """
    left_out = LeftOut()
    try:
        names = images_below(root, left_out)
        folders = set(_folders(root))
    except OSError as error:
        raise UserError("config.data.root", str(root), f"cannot be read: {error}") from error
    found = [(name, name.split("/")[0]) for name in names if "/" in name]
    left_out.reasons["in no folder of a class"] += len(names) - len(found)
    left_out.log(str(root), len(found))
    if empty := sorted(folders - {label for _, label in found}):
        _LOG.warning("%s: %s", file_names.to_text(str(root)), _without_images(empty))
    return sorted(found, key=lambda image: (image[1], image[0]))


def _folders(root: pathlib.Path) -> list[str]:
    """Names of the folders that may be classes."""
    with os.scandir(root) as entries:
        return [
            file_names.to_text(entry.name)
            for entry in entries
            if not is_hidden(entry.name) and os.path.isdir(entry.path)
        ]


def _without_images(classes: list[str]) -> str:
    more = " ..." if len(classes) > _MOST_LISTED else ""
    return f"{len(classes)} classes without images: {', '.join(classes[:_MOST_LISTED])}{more}"


def _of_empty_classes(folder: pathlib.Path) -> str:
    """A clause about classes without images; empty if there are none."""
    empty = sorted(_folders(folder))
    return f"; it has {_without_images(empty)}" if empty else ""


def _split(root: pathlib.Path, split: str) -> pathlib.Path:
    folder = root / split
    if not folder.is_dir():
        raise UserError("config.data.root", str(root), f"must have a folder {split}/")
    return folder


def _source(folder: pathlib.Path, images: list[tuple[str, str]], classes: list[str]) -> FileSource:
    places = {name: label for label, name in enumerate(classes)}
    unknown = sorted({label for _, label in images} - places.keys())
    if unknown:
        rule = f"has no folder of that name in train/: {', '.join(unknown[:_MOST_LISTED])}"
        raise UserError("config.data.root", str(folder), rule)
    if not images:
        rule = "must contain images" + _of_empty_classes(folder)
        raise UserError("config.data.root", str(folder), rule)
    labels = np.asarray([places[label] for _, label in images], np.int64)
    return FileSource(folder, [name for name, _ in images], labels)
