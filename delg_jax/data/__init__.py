"""Data sets: what to train on, and what to search in."""

import importlib
import types

import ml_collections

from delg_jax.data import exclusion
from delg_jax.data.sources import (
    DataSettings,
    FileSource,
    ImageSource,
    JoinedSource,
    RetrievalData,
    TrainingData,
)
from delg_jax.errors import UserError, require_choice

# Modules of this package with a function `training` and, or, `retrieval`, by data set.
_TRAINING = {
    "synthetic": "synthetic",
    "folder": "folder",
    "image_folder": "tfds_builders",
    "gldv1": "tfds_builders",
    "gldv2": "tfds_builders",
    "gldv2_clean": "tfds_builders",
}
_RETRIEVAL = {
    "synthetic": "synthetic",
    "images": "listing",
    "folder": "validation_pairs",
    "image_folder": "validation_pairs",
    "gldv1": "validation_pairs",
    "revisited": "ground_truth",
    "ilias": "ilias",
    "revisited_oxford": "tfds_builders",
    "revisited_paris": "tfds_builders",
    "gldv2": "tfds_builders",
    "gldv2_recognition": "tfds_builders",
    "gldv2_clean_recognition": "tfds_builders",
}

_MODULES = {"training": _TRAINING, "retrieval": _RETRIEVAL}
IN_PLACE = ("folder", "ilias", "images", "revisited")  # data sets that need no preparation
PURPOSES = ("training", "retrieval")

# Numbers that every data set is read with, and the least value of each
LEAST = {"memory_megabytes": 0, "max_skipped": 0, "min_side": 1, "max_pixels": 1, "workers": -1}

__all__ = [
    "IN_PLACE",
    "LEAST",
    "PURPOSES",
    "DataSettings",
    "FileSource",
    "ImageSource",
    "JoinedSource",
    "RetrievalData",
    "TrainingData",
    "open_retrieval",
    "open_training",
    "prepare",
    "require_set",
    "settings_of",
    "training",
]


def open_training(data: ml_collections.ConfigDict) -> TrainingData:
    """Opens the labelled images that `config.data` names; raises a UserError if it cannot.

    Images and landmarks of the file `config.data.exclude` are left out.
    """
    return training(settings_of(data))


def open_retrieval(data: ml_collections.ConfigDict) -> RetrievalData:
    """Opens the database and queries that `config.data` names; raises a UserError if it cannot."""
    settings = settings_of(data)
    found = _open(settings, "retrieval")
    if not settings.distractors:
        return found
    builders = importlib.import_module("delg_jax.data.tfds_builders")
    with _distributed().first_before_others("distractors"):
        return builders.with_distractors(found, settings)


def settings_of(data: ml_collections.ConfigDict) -> DataSettings:
    """The settings of `config.data`; raises a UserError for a number that is too small."""
    for name, least in LEAST.items():
        if data[name] < least:
            raise UserError(f"config.data.{name}", data[name], f"must be at least {least}")
    return DataSettings.of(data)


def training(settings: DataSettings) -> TrainingData:
    """Opens labelled images, as `open_training` does."""
    found = _open(settings, "training")
    return exclusion.exclude(found, settings.exclude) if settings.exclude else found


def prepare(data: ml_collections.ConfigDict, purpose: str = "") -> TrainingData | RetrievalData:
    """Prepares the data set that `config.data` names, so that other verbs find it ready.

    With `config.data.beam_options` the work is done on Apache Beam. Of several processes of
    `jax.distributed`, the first one prepares.

    Args:
      data: the `config.data` tree.
      purpose: `training` or `retrieval`; "" for training, or retrieval if the data set has no
        training images.

    Returns:
      The data, as `open_training` or `open_retrieval` do.

    Raises:
      UserError: if the data set cannot be prepared, or has no images for the purpose.
    """
    if not purpose:
        purpose = "retrieval" if data.name in _RETRIEVAL.keys() - _TRAINING.keys() else "training"
    require_choice("purpose", purpose, PURPOSES)
    return open_training(data) if purpose == "training" else open_retrieval(data)


def require_set(name: str, purpose: str) -> None:
    """Raises a UserError unless a data set has images for a purpose, `training` or `retrieval`."""
    require_choice("config.data.name", name, tuple(_TRAINING | _RETRIEVAL))
    names = _MODULES[purpose]
    if name not in names:
        rule = f"has no {purpose} images; data sets that do are {', '.join(names)}"
        raise UserError("config.data.name", name, rule)


def _open(data: DataSettings, purpose: str):
    require_set(data.name, purpose)
    module = importlib.import_module(f"delg_jax.data.{_MODULES[purpose][data.name]}")
    with _distributed().first_before_others(f"{purpose} data"):  # which may have to be prepared
        return getattr(module, purpose)(data)


def _distributed() -> types.ModuleType:
    """Imported late, because processes that only decode images do without JAX."""
    return importlib.import_module("delg_jax.distributed")
