"""Variables of a network: initialised, filled with pretrained weights, and their digest."""

import dataclasses
import hashlib
import logging
from collections.abc import Mapping
from typing import Any, Self

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import delg, weights
from delg_jax.models.delg import Delg

_LOG = logging.getLogger(__name__)

Variables = dict[str, Any]


def initialize(module: Delg, key: jax.Array) -> Variables:
    """Initialises all variables of `module`, classifiers included; deterministic for `key`."""
    variables = delg.init(module, key)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


def shapes(module: Delg) -> Variables:
    """Shape and dtype of each variable of `module`, classifiers included, as `initialize` gives."""
    variables = delg.init.eval_shape(module, jax.random.key(0))
    return {name: variables.get(name, {}) for name in ("params", "batch_stats")}


@dataclasses.dataclass(frozen=True)
class Pretrained:
    """Weights of another system; the fields of `config.model` that start with `pretrained`.

    Attributes:
      weights: a file, or a published name; "" for none.
      source: their naming scheme, a key of `weights.names.NAMINGS`; "" = found from their names.
      mapping: JSON file that maps names of variables; "" = the naming scheme.
    """

    weights: str
    source: str = ""
    mapping: str = ""

    @classmethod
    def of(cls, model: ml_collections.ConfigDict) -> Self:
        """The weights that `config.model` names."""
        return cls(model.pretrained, model.pretrained_source, model.pretrained_mapping)


def pretrained_variables(
    module: Delg, key: jax.Array, pretrained: Pretrained, complete: bool = False
) -> Variables:
    """The variables that pretrained weights hold; those that they lack are initialised.

    The weights are checked before anything is initialised.

    Args:
      module: the network.
      key: of the initialisation.
      pretrained: the weights.
      complete: as for `load_pretrained`.

    Returns:
      As `initialize`.

    Raises:
      UserError: if the weights do not fit the network.
    """
    found = _read_pretrained(module, pretrained, classifiers=False, complete=complete)
    return _merged(initialize(module, key), found, pretrained)


def load_pretrained(
    module: Delg,
    variables: Variables,
    pretrained: Pretrained,
    classifiers: bool = False,
    complete: bool = False,
) -> Variables:
    """Replaces the variables that pretrained weights hold; a no-op if there are none.

    Args:
      module: the network.
      variables: of it, fresh.
      pretrained: the weights.
      classifiers: whether to load the classifiers too; their number of classes must then be equal.
      complete: whether to refuse weights that lack a head of which features are made.

    Returns:
      Variables of the same structure.

    Raises:
      UserError: if the weights do not fit the network.
    """
    found = _read_pretrained(module, pretrained, classifiers, complete)
    return _merged(variables, found, pretrained)


def _read_pretrained(
    module: Delg, pretrained: Pretrained, classifiers: bool, complete: bool
) -> Variables | None:
    """The variables that pretrained weights hold; None if there are none."""
    if not pretrained.weights:
        return None
    arrays = weights.read_arrays(weights.locate(pretrained.weights))
    source = _source(module.backbone, pretrained, arrays)
    # Shapes fit weights of another convention too, but strides and input normalisation do not
    convention = weights.convention_of(source, arrays, module.backbone)
    if module.convention != convention:
        rule = f"must be {convention}, the convention of these {source} weights"
        raise UserError("config.model.convention", module.convention, rule)
    mapping = weights.read_mapping(pretrained.mapping)
    converted = weights.convert(source, arrays, module, mapping, classifiers)
    if complete:
        _require_heads(module, pretrained.weights, converted["params"])
    return converted


def _source(backbone: str, pretrained: Pretrained, arrays: Mapping[str, np.ndarray]) -> str:
    """The naming scheme of weights, which also must be of the backbone."""
    found = weights.identify(arrays)
    if found is None:
        if not pretrained.source:
            rule = "must be given: the names in config.model.pretrained match no known backbone"
            raise UserError("config.model.pretrained_source", "", rule)
        return pretrained.source  # conversion says what is missing
    if found.backbone != backbone:
        rule = f"must be {found.backbone}, the architecture of these weights"
        raise UserError("config.model.backbone", backbone, rule)
    return pretrained.source or found.source


def _require_heads(module: Delg, name: str, found: Mapping[str, Any]) -> None:
    """Refuses weights that lack a head of which features are made."""
    heads: tuple[tuple[str, str, Any, bool], ...] = (
        ("whiten", "whitening", False, True),
        ("attend", "attention", "norm", module.local_head),
        ("reduce", "dim_reduction", "none", module.local_head),
    )
    for part, field, without, computed in heads:
        value = getattr(module, field)
        if computed and value != without and part not in found:
            rule = f"must be {without!r}: {name} has no such layer, and one of random "
            rule += "weights would make useless features"
            raise UserError(f"config.model.{field}", value, rule)


def _merged(variables: Variables, found: Variables | None, pretrained: Pretrained) -> Variables:
    if found is None:
        return variables
    merged = traverse_util.flatten_dict(variables)
    merged.update(traverse_util.flatten_dict(found))
    fresh = sorted(
        part
        for part in set(variables["params"]) - set(found["params"])
        if not part.endswith("_classifier")
    )
    if fresh:
        _LOG.info("%s lacks %s; initialised at random", pretrained.weights, ", ".join(fresh))
    return traverse_util.unflatten_dict(merged)


def digest(variables: Variables) -> str:
    """SHA-256 over names, shapes and values: equal exactly if the variables are."""
    total = hashlib.sha256()
    for path, leaf in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        array = np.asarray(leaf)
        total.update(f"{path} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
