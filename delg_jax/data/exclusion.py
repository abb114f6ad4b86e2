"""Training images that are left out: those that `config.data.exclude` lists.

A line of the file is a landmark or an image, as the data set names them, or, where a name could be
either, `landmark:NAME` or `image:NAME`. A # begins a comment line.
"""

import dataclasses
import logging
import pathlib
from collections.abc import Iterable

import numpy as np

from delg_jax import text_files
from delg_jax.data.image_files import SUFFIXES
from delg_jax.data.sources import FileSource, ImageSource, SelectedSource, TrainingData
from delg_jax.errors import UserError

_LOG = logging.getLogger(__name__)

FIELD = "config.data.exclude"
LANDMARK, IMAGE = "landmark:", "image:"


def exclude(data: TrainingData, path: str) -> TrainingData:
    """Leaves out the listed landmarks and images; labels are counted from 0 again.

    Args:
      data: all of it.
      path: of the list; a path of an image stands for its name, and an ending may be left out.

    Returns:
      What remains. A landmark whose last training image is left out is no class any more, and its
      validation images are left out, too.

    Raises:
      UserError: if the file cannot be read, nothing in it is known, a line could be a landmark or
        an image, or nothing remains to train on.
    """
    listed = _read(pathlib.Path(path))
    classes = {name: label for label, name in enumerate(data.classes)}
    images = {
        name for source in (data.train, data.validation) for name in map(_plain, source.names)
    }
    flat = not any("/" in name for name in images)
    labels: set[int] = set()
    names: set[str] = set()
    unknown: list[str] = []
    for number, line in listed:
        landmark, image = line, _plain(line)
        if line.startswith(LANDMARK):
            landmark, image = line.removeprefix(LANDMARK), ""
        elif line.startswith(IMAGE):
            landmark, image = "", _plain(line.removeprefix(IMAGE))
        if flat:  # images named by ids lie in folders of their first letters
            image = image.rpartition("/")[2]
        if landmark in classes and image in images:
            rule = f"could be a landmark or an image: write {LANDMARK}{line} or {IMAGE}{line}"
            raise UserError(FIELD, f"{path}, line {number}", rule)
        if landmark in classes:
            labels.add(classes[landmark])
        elif image in images:
            names.add(image)
        else:
            unknown.append(line)
    if listed and not labels and not names:
        rule = f"must name landmarks or images of the data set, but {listed[0][1]!r} and all other "
        raise UserError(FIELD, path, f"{rule}lines are neither")
    if unknown:
        text = "%s: %d of %d lines are no landmark or image of the training data, first %r"
        _LOG.warning(text, path, len(unknown), len(listed), unknown[0])
    return _without(data, labels, names, path)


def _without(data: TrainingData, labels: set[int], names: set[str], path: str) -> TrainingData:
    train, validation = (_kept(source, labels, names) for source in (data.train, data.validation))
    remaining = np.unique(data.train.labels[train])
    if not len(remaining):
        raise UserError(FIELD, path, "must leave images to train on")
    validation = validation[np.isin(data.validation.labels[validation], remaining)]
    lost = len(data.train) - len(train), len(data.validation) - len(validation)
    _LOG.info(
        "%s leaves out %d training images, %d validation images and %d classes",
        path, *lost, len(data.classes) - len(remaining),
    )  # fmt: skip
    return TrainingData(
        _select(data.train, train, remaining),
        _select(data.validation, validation, remaining),
        [data.classes[label] for label in remaining],
    )


def _kept(source: ImageSource, labels: set[int], names: set[str]) -> np.ndarray:
    """Indices of the images that stay, int64 [n]."""
    by_label = np.isin(source.labels, sorted(labels))
    by_name = np.array([_plain(name) in names for name in source.names], bool)
    return np.flatnonzero(~(by_label | by_name))


def _select(source: ImageSource, kept: np.ndarray, classes: np.ndarray) -> ImageSource:
    """Some images of a source, with their labels as places in `classes`."""
    labels = np.searchsorted(classes, source.labels[kept]).astype(source.labels.dtype)
    if isinstance(source, FileSource):
        return dataclasses.replace(source, names=[source.names[i] for i in kept], labels=labels)
    return SelectedSource(source, kept, labels)


def _plain(name: str) -> str:
    """A name without the ending of an image file."""
    stem, dot, ending = name.rpartition(".")
    return stem if dot and f".{ending.lower()}" in SUFFIXES else name


def _read(path: pathlib.Path) -> list[tuple[int, str]]:
    text = text_files.read(path, FIELD)
    return [(number, line) for number, line in text_files.lines(text) if not line.startswith("#")]


def listing(names: Iterable[str], about: str) -> str:
    """The text of a file for `config.data.exclude`.

    Args:
      names: of images.
      about: one line, for a comment.
    """
    return "".join(f"{line}\n" for line in (f"# {about}", *(f"{IMAGE}{name}" for name in names)))
