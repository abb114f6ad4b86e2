"""TensorFlow checkpoints, named by variables (TF1) or by objects (TF2), and SavedModels."""

import os
import warnings
from collections import defaultdict
from types import ModuleType
from typing import Any

import numpy as np

from delg_jax.models.weights.refusal import refusal

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"
# Parts of keys of training state other than weights
_BESIDE = {"save_counter", "optimizer", ".OPTIMIZER_SLOT", "keras_api"}
# In Keras 3 the optimiser owns the weights of a compiled model
_TRAINED = "_trainable_variables"


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the numeric variables of a checkpoint or SavedModel without executing its graph.

    Args:
      path: the prefix of a checkpoint, its `.index` file, a single-file checkpoint of the first
        format, a folder whose file `checkpoint` names the latest, or the folder of a SavedModel.

    Returns:
      Arrays by name. In object-based checkpoints this is the name that the program gave, or the
      object path if that is empty or ambiguous; optimiser state is left out.

    Raises:
      UserError: if a folder holds neither a checkpoint nor variables.
      Exception: of any kind, if it is damaged.
    """
    _require_variables(path)
    tf = _import_tensorflow()
    reader = tf.train.load_checkpoint(_prefix(path, tf))
    arrays = {
        key: reader.get_tensor(key)
        for key, dtype in sorted(reader.get_variable_to_dtype_map().items())
        if dtype.is_floating or dtype.is_integer or dtype.is_bool
    }
    return _named(arrays, reader) if reader.has_tensor(_OBJECT_GRAPH) else arrays


def _import_tensorflow() -> ModuleType:
    """Imports TensorFlow without its banner and warnings."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN logs at every level, and is not needed for reading
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "0")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        import tensorflow
    return tensorflow


def _saved_variables(folder: str) -> str:
    return os.path.join(folder, "variables", "variables")


def _require_variables(path: str) -> None:
    places = (_saved_variables(path) + ".index", os.path.join(path, "checkpoint"))
    if os.path.isdir(path) and not any(os.path.isfile(place) for place in places):
        wanted = "variables/variables.index (a SavedModel) or `checkpoint`"
        raise refusal(path, f"must hold {wanted}; both are missing")


def _prefix(path: str, tf: ModuleType) -> str:
    """The path without file suffixes."""
    if not os.path.isdir(path):
        return path.removesuffix(".index")
    if os.path.isfile(_saved_variables(path) + ".index"):
        return _saved_variables(path)
    state = tf.train.get_checkpoint_state(path)
    if state is None:
        raise refusal(path, "must hold a readable file `checkpoint`")
    latest = state.model_checkpoint_path
    moved = os.path.join(path, os.path.basename(latest))  # if the folder was moved
    for prefix in (latest, moved):
        if os.path.isfile(f"{prefix}.index"):
            return prefix
    raise refusal(path, f"must hold {os.path.basename(latest)}.index, which `checkpoint` names")


def _named(arrays: dict[str, np.ndarray], reader: Any) -> dict[str, np.ndarray]:
    """Arrays by variable name instead of key."""
    from tensorflow.core.protobuf.trackable_object_graph_pb2 import TrackableObjectGraph

    graph = TrackableObjectGraph.FromString(reader.get_tensor(_OBJECT_GRAPH))
    names = {
        attribute.checkpoint_key: attribute.full_name.removesuffix(":0")
        for node in graph.nodes
        for attribute in node.attributes
    }
    keys_of = defaultdict(list)
    for key in arrays:
        if _TRAINED in key.split("/") or not _BESIDE.intersection(key.split("/")):
            keys_of[names.get(key) or key.removesuffix(_KEY_END)].append(key)
    named = {}
    for name, (first, *others) in keys_of.items():
        # An export may hold a variable twice, under two object paths
        if all(np.array_equal(arrays[first], arrays[key]) for key in others):
            named[name] = arrays[first]
        else:
            named |= {key.removesuffix(_KEY_END): arrays[key] for key in (first, *others)}
    return named
