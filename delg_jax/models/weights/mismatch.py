"""Explains in one line why weights do not fit the network."""

from collections.abc import Iterable, Mapping

import ml_collections
import numpy as np

from delg_jax.errors import UserError, require_choice
from delg_jax.models.weights.identify import architecture_of, present
from delg_jax.models.weights.names import NAMINGS, Naming

Shape = tuple[int, ...]


def best_naming(source: str, names: Iterable[str], architecture: str) -> Naming:
    """The naming of `source` that matches most names; the first of several."""
    known = set(names)
    return max(NAMINGS[source], key=lambda n: len(present(n, known, n.kernels(architecture))))


def convention_of(source: str, names: Iterable[str], architecture: str) -> str:
    """The convention of the networks whose weights have these names.

    Args:
      source: a key of `names.NAMINGS`.
      names: all names in the file.
      architecture: one of `names.ARCHITECTURES`.

    Returns:
      A key of `convention.CONVENTIONS`.

    Raises:
      UserError: if `source` is unknown.
    """
    require_choice("config.model.pretrained_source", source, tuple(NAMINGS))
    return best_naming(source, names, architecture).convention


def explain(
    source: str,
    names: Mapping[str, np.ndarray],
    model: ml_collections.ConfigDict,
    missing: list[str],
    surplus: list[str],
    misshapen: Mapping[str, tuple[str, Shape, Shape]],
) -> None:
    """Raises an error that explains the mismatch, if there is one.

    Args:
      source: a key of `names.NAMINGS`.
      names: all arrays in the file, by name.
      model: `config.model`.
      missing: names that the file lacks.
      surplus: names that the network lacks.
      misshapen: the source's name, its converted shape and our shape, by our path.

    Raises:
      UserError: that names the wrong field (architecture, source or number of classes) if that
        explains the mismatch, else all names.
    """
    if not (missing or surplus or misshapen):
        return
    found = architecture_of(source, names)
    others = [other for other in NAMINGS if other != source and architecture_of(other, names)]
    if found and found != model.backbone:
        rule = f"must be {found}, the architecture of these weights"
        raise UserError("config.model.backbone", model.backbone, rule)
    if not found and others:
        rule = f"must be {others[0]}, the naming scheme of config.model.pretrained"
        raise UserError("config.model.pretrained_source", source, rule)
    for path, (_, shape, _) in misshapen.items():
        if path.partition("/")[0].endswith("_classifier") and shape[-1:] != (model.num_classes,):
            rule = f"must be {shape[-1]}, the classes of these weights, or 0 to leave them out"
            raise UserError("config.model.num_classes", model.num_classes, rule)
    texts = [f"{name} {shape} instead of {ours}" for name, shape, ours in misshapen.values()]
    _list(source, {"missing": missing, "surplus": surplus, "misshapen": texts})


def _list(source: str, problems: dict[str, list[str]]) -> None:
    texts = [
        f"{len(names)} {label} ({', '.join(names)})" for label, names in problems.items() if names
    ]
    rule = f"config.model.pretrained does not fit these names: {'; '.join(texts)}"
    if NAMINGS[source][0].patterns:
        rule += "; map names with --mapping=FILE, a JSON object from ours to theirs"
    raise UserError("config.model.pretrained_source", source, rule)
