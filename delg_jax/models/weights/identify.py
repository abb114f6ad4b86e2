"""Finds what weights are of (naming scheme, architecture, heads) from the names in their file."""

import dataclasses
import re
from collections.abc import Iterable, Mapping

import numpy as np

from delg_jax.errors import require_choice
from delg_jax.models.weights.names import ARCHITECTURES, NAMINGS, Naming


@dataclasses.dataclass(frozen=True)
class Identity:
    """What weights are of.

    Attributes:
      source: their naming scheme, a key of `names.NAMINGS`.
      backbone: their architecture, one of `names.ARCHITECTURES`.
      convention: a key of `convention.CONVENTIONS`.
    """

    source: str
    backbone: str
    convention: str


def identify(names: Iterable[str] | Mapping[str, np.ndarray]) -> Identity | None:
    """Finds whose backbone the names are of.

    Args:
      names: all names in the file, or all arrays by name, which alone tell apart Vision
        Transformers.

    Returns:
      The identity; None if no known backbone, or only a part of one, has these names.
    """
    known, arrays = set(names), names if isinstance(names, Mapping) else None
    for source, namings in NAMINGS.items():
        for naming in namings:
            found = _architecture(naming, known, arrays)
            if found is None:
                continue
            # The released models have Slim's names too, and heads beside the backbone
            released = source == "slim" and _beside(naming, found, known)
            return Identity("delg_savedmodel" if released else source, found, naming.convention)
    return None


def architecture_of(source: str, names: Iterable[str] | Mapping[str, np.ndarray]) -> str | None:
    """The architecture whose kernels, and no others, have a source's names; None if none."""
    known, arrays = set(names), names if isinstance(names, Mapping) else None
    found = (_architecture(naming, known, arrays) for naming in NAMINGS[source])
    return next((architecture for architecture in found if architecture), None)


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


def present(naming: Naming, names: set[str], kernels: set[str]) -> set[str]:
    """The kernels that are among the names, under any prefix if the naming has patterns."""
    if not naming.patterns:
        return kernels & names
    return {
        kernel for kernel in kernels if any(f"/{name}".endswith(f"/{kernel}") for name in names)
    }


def head_fields(
    identity: Identity, arrays: Mapping[str, np.ndarray]
) -> dict[str, str | int | bool]:
    """The fields of `config.model` with which the heads in a file are used, and no others.

    Args:
      identity: of the weights.
      arrays: the weights by name.

    Returns:
      Values of `whitening`, `global_dim`, `attention`, `attention_dim`, `dim_reduction` and
      `local_dim`, by field; dimensions only of heads that the file has.
    """
    whiten, attend, reduce = (
        _width(identity, arrays, module) for module in ("whiten", "attend/conv1", "reduce/encoder")
    )
    kind = "ae" if _width(identity, arrays, "reduce/decoder") else "fc"
    fields: dict[str, str | int | bool] = {
        "whitening": whiten > 0,
        "attention": "learned" if attend else "norm",
        "dim_reduction": kind if reduce else "none",
    }
    widths = {"global_dim": whiten, "attention_dim": attend, "local_dim": reduce}
    return fields | {field: width for field, width in widths.items() if width}


def _width(identity: Identity, arrays: Mapping[str, np.ndarray], module: str) -> int:
    """Channels that a module of a head puts out; 0 if the file lacks it."""
    for naming in NAMINGS[identity.source]:
        ending = naming.separator + naming.convolution["kernel"]
        known = naming.whole.get(module, "")
        known = naming.fused[known][0] if known in naming.fused else known
        for pattern in naming.patterns.get(module, (f"^{re.escape(known)}$",)):
            for name in sorted(arrays):
                owner = name.removesuffix(ending)
                if not name.endswith(ending) or (naming.patterns and "/block" in owner):
                    continue
                if re.search(pattern, owner, re.IGNORECASE if naming.patterns else 0):
                    return int(np.shape(arrays[name])[0 if naming.output_first else -1])
    return 0


def _architecture(
    naming: Naming, names: set[str], arrays: Mapping[str, np.ndarray] | None
) -> str | None:
    kernels = {name: naming.kernels(name) for name in ARCHITECTURES}
    found = present(naming, names, set().union(*kernels.values()))
    same = [name for name, own in kernels.items() if own and own == found]
    if arrays is not None:
        same = [name for name in same if naming.fits(name, arrays)]
    return same[0] if same else None


def _beside(naming: Naming, architecture: str, names: set[str]) -> bool:
    """Whether there are names outside the backbone that are not those of a training."""
    root = naming.modules(architecture)["resnet/stem_conv"].partition("/")[0]
    return any(
        not name.startswith(f"{root}/")
        and not any(name.startswith(mark) or name.endswith(mark) for mark in naming.ignored)
        for name in names
    )
