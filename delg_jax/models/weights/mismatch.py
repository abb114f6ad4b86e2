"""Says in one line why weights do not fit the network."""

from collections.abc import Iterable, Mapping

import ml_collections

from delg_jax.errors import UserError, require_choice
from delg_jax.models.resnet import ARCHITECTURES
from delg_jax.models.weights.names import NAMINGS, Naming

Shape = tuple[int, ...]


def dialect(source: str, names: Iterable[str], architecture: str) -> Naming:
    """The naming of `source` that knows most of the names; the first if several do."""
    names = set(names)
    return max(NAMINGS[source], key=lambda n: len(_present(n, names, n.kernels(architecture))))


def convention_of(source: str, names: Iterable[str], model: ml_collections.ConfigDict) -> str:
    """The convention of the networks whose weights come under such names.

    Args:
      source: a key of `names.NAMINGS`.
      names: all that the source has.
      model: `config.model`.

    Returns:
      A key of `convention.CONVENTIONS`.

    Raises:
      UserError: for another `source`.
    """
    require_choice("config.model.pretrained_source", source, tuple(NAMINGS))
    return dialect(source, names, model.backbone).convention


def explain(
    source: str,
    names: Iterable[str],
    model: ml_collections.ConfigDict,
    missing: list[str],
    surplus: list[str],
    misshapen: Mapping[str, tuple[str, Shape, Shape]],
) -> None:
    """Raises what is wrong, if anything is.

    Args:
      source: a key of `names.NAMINGS`.
      names: all that the source has.
      model: `config.model`.
      missing: names that it lacks.
      surplus: names that have no place.
      misshapen: the source's name, the shape that its axes give and ours, by our path.

    Raises:
      UserError: naming the one field that is wrong where that explains it: the architecture, the
        source, or the number of classes; else listing every name.
    """
    if not (missing or surplus or misshapen):
        return
    names = set(names)
    found = _architecture(source, names)
    others = [other for other in NAMINGS if other != source and _architecture(other, names)]
    if found and found != model.backbone:
        rule = f"must be {found}, the architecture of these weights"
        raise UserError("config.model.backbone", model.backbone, rule)
    if not found and others:
        rule = f"must be {others[0]}, whose names those of config.model.pretrained are"
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
    rule = f"config.model.pretrained must fit these names: {'; '.join(texts)}"
    if NAMINGS[source][0].patterns:
        rule += "; --mapping=FILE, a JSON object of our names to theirs, completes it"
    raise UserError("config.model.pretrained_source", source, rule)


def _architecture(source: str, names: set[str]) -> str | None:
    """The architecture of whose units, and of no others, kernels are under the source's names."""
    for naming in NAMINGS[source]:
        kernels = {name: naming.kernels(name) for name in ARCHITECTURES}
        present = _present(naming, names, set().union(*kernels.values()))
        for architecture, own in kernels.items():
            if present == own:
                return architecture
    return None


def _present(naming: Naming, names: set[str], kernels: set[str]) -> set[str]:
    """Which of the kernels are among the names; under any prefix where names have patterns."""
    if not naming.patterns:
        return kernels & names
    return {
        kernel for kernel in kernels if any(f"/{name}".endswith(f"/{kernel}") for name in names)
    }
