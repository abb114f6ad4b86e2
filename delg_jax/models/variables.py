"""Variables of a network: initialised, filled with pretrained weights, and their digest."""

import functools
import hashlib
import logging
from collections.abc import Mapping
from typing import Any

import jax
import ml_collections
import numpy as np
from flax import traverse_util

from delg_jax.errors import UserError
from delg_jax.models import weights
from delg_jax.models.delg import Delg

_LOG = logging.getLogger(__name__)

Variables = dict[str, Any]

# Initialisation runs once: optimising its compilation would cost more than it saves
_COMPILE_FAST = {"xla_backend_optimization_level": 0}


def initialize(module: Delg, key: jax.Array) -> Variables:
    """Initialises all variables of `module`, classifiers included; deterministic for `key`."""
    variables = _init(module, key)
    return {"params": variables["params"], "batch_stats": variables.get("batch_stats", {})}


# Compiled once for a module, however many networks a process opens
@functools.partial(jax.jit, static_argnames="module", compiler_options=_COMPILE_FAST)
def _init(module: Delg, key: jax.Array) -> Variables:
    return dict(module.init(key, np.zeros((1, 64, 64, 3), np.float32), method="classify"))


def shapes(module: Delg) -> Variables:
    """Shape and dtype of each variable of `module`, classifiers included, as `initialize` gives."""
    image = jax.ShapeDtypeStruct((1, 64, 64, 3), np.float32)
    init = functools.partial(module.init, method="classify")
    variables = jax.eval_shape(init, jax.random.key(0), image)
    return {name: variables.get(name, {}) for name in ("params", "batch_stats")}


def pretrained_variables(
    module: Delg, key: jax.Array, model: ml_collections.ConfigDict, complete: bool = False
) -> Variables:
    """The variables of `config.model.pretrained`; those that it lacks are initialised.

    The weights are checked before anything is initialised.

    Args:
      module: the network.
      key: of the initialisation.
      model: the `config.model` tree.
      complete: as for `load_pretrained`.

    Returns:
      As `initialize`.

    Raises:
      UserError: if the weights do not fit the network.
    """
    pretrained = _read_pretrained(model, classifiers=False, complete=complete)
    return _merged(initialize(module, key), pretrained, model)


def load_pretrained(
    variables: Variables,
    model: ml_collections.ConfigDict,
    classifiers: bool = False,
    complete: bool = False,
) -> Variables:
    """Replaces the variables that `config.model.pretrained` holds; a no-op if it is empty.

    Args:
      variables: fresh variables of the network.
      model: the `config.model` tree.
      classifiers: whether to load the classifiers too; their number of classes must then be equal.
      complete: whether to refuse weights that lack a head of which features are made.

    Returns:
      Variables of the same structure.

    Raises:
      UserError: if the weights do not fit the network.
    """
    return _merged(variables, _read_pretrained(model, classifiers, complete), model)


def _read_pretrained(
    model: ml_collections.ConfigDict, classifiers: bool, complete: bool
) -> Variables | None:
    """The variables that `config.model.pretrained` holds; None if it is empty."""
    if not model.pretrained:
        return None
    arrays = weights.read_arrays(weights.locate(model.pretrained))
    source = _source(model, arrays)
    # Shapes fit weights of another convention too, but strides and input normalisation do not
    convention = weights.convention_of(source, arrays, model.backbone)
    if model.convention != convention:
        rule = f"must be {convention}, the convention of these {source} weights"
        raise UserError("config.model.convention", model.convention, rule)
    if not classifiers:
        model = model.copy_and_resolve_references()
        model.num_classes = 0
    converted = weights.convert(
        source, arrays, model, weights.read_mapping(model.pretrained_mapping)
    )
    if complete:
        _require_heads(model, converted["params"])
    return converted


def _source(model: ml_collections.ConfigDict, arrays: Mapping[str, np.ndarray]) -> str:
    """The naming scheme of weights, which also must be of the backbone of `config.model`."""
    found = weights.identify(arrays)
    if found is None:
        if not model.pretrained_source:
            rule = "must be given: the names in config.model.pretrained match no known backbone"
            raise UserError("config.model.pretrained_source", "", rule)
        return model.pretrained_source  # conversion says what is missing
    if found.backbone != model.backbone:
        rule = f"must be {found.backbone}, the architecture of these weights"
        raise UserError("config.model.backbone", model.backbone, rule)
    return model.pretrained_source or found.source


def _require_heads(model: ml_collections.ConfigDict, found: Mapping[str, Any]) -> None:
    """Refuses weights that lack a head of which features are made."""
    heads: tuple[tuple[str, str, Any, bool], ...] = (
        ("whiten", "whitening", False, True),
        ("attend", "attention", "norm", model.local_head),
        ("reduce", "dim_reduction", "none", model.local_head),
    )
    for part, field, without, computed in heads:
        if computed and model[field] != without and part not in found:
            rule = f"must be {without!r}: {model.pretrained} has no such layer, and one of random "
            rule += "weights would make useless features"
            raise UserError(f"config.model.{field}", model[field], rule)


def _merged(
    variables: Variables, pretrained: Variables | None, model: ml_collections.ConfigDict
) -> Variables:
    if pretrained is None:
        return variables
    merged = traverse_util.flatten_dict(variables)
    merged.update(traverse_util.flatten_dict(pretrained))
    fresh = sorted(
        part
        for part in set(variables["params"]) - set(pretrained["params"])
        if not part.endswith("_classifier")
    )
    if fresh:
        _LOG.info("%s lacks %s; initialised at random", model.pretrained, ", ".join(fresh))
    return traverse_util.unflatten_dict(merged)


def digest(variables: Variables) -> str:
    """SHA-256 over names, shapes and values: equal exactly if the variables are."""
    total = hashlib.sha256()
    for path, leaf in sorted(traverse_util.flatten_dict(variables, sep="/").items()):
        array = np.asarray(leaf)
        total.update(f"{path} {array.dtype} {array.shape}".encode())
        total.update(array.tobytes())
    return total.hexdigest()
