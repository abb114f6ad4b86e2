"""Variables of a network: initialised, filled with pretrained weights, and their digest."""

import functools
import hashlib
import logging
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


def load_pretrained(
    variables: Variables, model: ml_collections.ConfigDict, classifiers: bool = False
) -> Variables:
    """Replaces the variables that `config.model.pretrained` holds; a no-op if it is empty.

    Args:
      variables: fresh variables of the network.
      model: the `config.model` tree.
      classifiers: whether to load the classifiers too; their number of classes must then be equal.

    Returns:
      Variables of the same structure.

    Raises:
      UserError: if the weights do not fit the network.
    """
    if not model.pretrained:
        return variables
    arrays = weights.read_arrays(model.pretrained)
    source = model.pretrained_source
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
    merged = traverse_util.flatten_dict(variables)
    merged.update(traverse_util.flatten_dict(converted))
    fresh = sorted(set(variables["params"]) - set(converted["params"]))
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
