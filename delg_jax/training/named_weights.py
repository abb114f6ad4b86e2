"""Weights given by one word: a published name, a file, or a workdir of a training."""

import dataclasses
import difflib
import pathlib
from typing import Any

import ml_collections

from delg_jax.errors import UserError
from delg_jax.models import vit
from delg_jax.models.weights import PUBLISHED, Identity, head_fields, identify, locate, read_arrays
from delg_jax.training.checkpoints import FOLDER, has_checkpoint
from delg_jax.workdir import stored_config

_STRIDE = {"slim": 32}  # pixels between positions of conv4 by convention; others: 16
_IN_FOLDERS = ("saved_model.pb", "variables", "checkpoint")  # of SavedModels and checkpoints


@dataclasses.dataclass(frozen=True)
class NamedWeights:
    """What weights are, as found from their file.

    Attributes:
      path: file or folder of the weights, or the workdir of the training.
      source: naming scheme, `config.model.pretrained_source`; empty for a workdir.
      fields: the fields of `config.model` that the weights decide: where they are, backbone,
        convention and stride of conv4; of a workdir, the whole network.
      heads: further fields, with which the heads in the file are used: whether there are whitening,
        attention and autoencoder, and their dimensions. Empty if they were not asked for.
    """

    path: str
    source: str
    fields: dict[str, Any]
    heads: dict[str, Any]


def find_weights(
    weights: str,
    heads: bool = False,
    offline: bool = False,
    cache: pathlib.Path | None = None,
) -> NamedWeights:
    """Finds weights by name or path, and everything that must be known to use them.

    Args:
      weights: a name of `PUBLISHED`, which is downloaded if it is not in the cache; a file of
        weights, the folder of a SavedModel or the prefix of a TensorFlow checkpoint; or a workdir
        of `delg train` or `delg convert`.
      heads: whether to find the heads in the file too, for which it is read.
      offline: whether to refuse what would have to be downloaded.
      cache: folder of downloads; None for the default.

    Returns:
      What they are.

    Raises:
      UserError: if there are no such weights, or they are of no known network.
    """
    if weights not in PUBLISHED and has_checkpoint(pathlib.Path(weights) / FOLDER):
        stored = stored_config(pathlib.Path(weights) / FOLDER)
        model = {n.removeprefix("model."): v for n, v in stored.items() if n.startswith("model.")}
        return NamedWeights(weights, "", model | {"checkpoint": weights, "pretrained": ""}, {})
    if weights not in PUBLISHED:
        _require_there(weights)
    path = locate(weights, offline, cache)
    published = PUBLISHED.get(weights)
    arrays = read_arrays(path) if heads or published is None else {}
    identity = published.identity if published else identify(arrays)
    if identity is None:
        rule = "must hold the weights of a known backbone; its names match none, first "
        raise UserError("weights", weights, rule + ", ".join(sorted(arrays)[:5]))
    fields = {
        "pretrained": weights if cache is None else path,
        "pretrained_source": identity.source,
        "backbone": identity.backbone,
        "convention": identity.convention,
        "conv4_stride": _stride(identity),
        "checkpoint": "",
    }
    return NamedWeights(
        path, identity.source, fields, head_fields(identity, arrays) if heads else {}
    )


def use_weights(
    config: ml_collections.ConfigDict, weights: str, heads: bool = False, offline: bool = False
) -> NamedWeights:
    """Sets the fields of `config.model` that weights decide; arguments as for `find_weights`."""
    found = find_weights(weights, heads, offline)
    config.model.update(found.fields | found.heads)
    return found


def _stride(identity: Identity) -> int:
    if identity.backbone in vit.ARCHITECTURES:
        return vit.ARCHITECTURES[identity.backbone].patch
    return _STRIDE.get(identity.convention, 16)


def _require_there(weights: str) -> None:
    """Refuses what is neither a file nor a folder of weights."""
    folder = pathlib.Path(weights)
    if weights and (folder.is_file() or pathlib.Path(f"{weights}.index").is_file()):
        return
    if weights and folder.is_dir() and any((folder / name).exists() for name in _IN_FOLDERS):
        return
    close = difflib.get_close_matches(weights, PUBLISHED, n=1)
    hint = f"did you mean {close[0]}? It " if close else ""
    rule = f"{hint}must be a file, a workdir with checkpoints, or one of {', '.join(PUBLISHED)}"
    raise UserError("weights", weights, rule)
