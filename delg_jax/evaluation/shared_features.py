"""Features that several evaluations share: made once, and linked into each working directory."""

import hashlib
import json
import pathlib

import ml_collections

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features.stage import sections
from delg_jax.models.delg import SOURCES

# Fields of config.data that say which images there are
_IMAGES = ("name", "root", "ground_truth", "distractors", "embedded")
_DIGITS = 12  # of the digest, in the name of a folder


def digest(config: ml_collections.ConfigDict) -> str:
    """Names the features that a configuration gives; others that give the same have the name too.

    Args:
      config: the whole tree.

    Returns:
      Hexadecimal digits.
    """
    weights = ("seed", *(f"model.{name}" for name in SOURCES))
    images = (f"data.{name}" for name in _IMAGES)
    files = (f"extract.imported_{kind}" for kind in ("local", "global"))
    fields = configuration.flatten(config, (*sections(config), *weights, *images, *files))
    return hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:_DIGITS]


def link(config: ml_collections.ConfigDict, folder: pathlib.Path, shared: pathlib.Path) -> None:
    """Makes `folder/features` lead to the features of this configuration under `shared`.

    What stands there already stays, features that were extracted in place among it.

    Args:
      config: the whole tree of an evaluation.
      folder: its working directory.
      shared: folder of all shared features.

    Raises:
      UserError: if the folders cannot be made.
    """
    place = folder / "features"
    target = (shared / digest(config)).resolve()
    try:
        target.mkdir(parents=True, exist_ok=True)
        folder.mkdir(parents=True, exist_ok=True)
        if place.is_symlink() and place.resolve() != target:
            place.unlink()
        if not place.exists():
            place.symlink_to(target, target_is_directory=True)
    except OSError as error:
        rule = f"must be a folder that can be written ({error.strerror})"
        raise UserError("workdir", str(folder), rule) from error
