"""TensorFlow checkpoints, named by variables (TF1) or by objects (TF2), and SavedModels."""

import os
import warnings
from collections import defaultdict
from types import ModuleType
from typing import Any

import numpy as np

from delg_jax.models.weights.readers.refusal import refusal

KIND = "TensorFlow checkpoint"

_OBJECT_GRAPH = "_CHECKPOINTABLE_OBJECT_GRAPH"
_KEY_END = "/.ATTRIBUTES/VARIABLE_VALUE"
# Parts of keys: what training keeps beside the weights.
_BESIDE = {"save_counter", "optimizer", ".OPTIMIZER_SLOT", "keras_api"}
# Keras 3 lets the optimiser own the weights of a compiled model.
_TRAINED = "_trainable_variables"


def read(path: str) -> dict[str, np.ndarray]:
    """Reads the numeric variables of a checkpoint or SavedModel; no graph in it is executed.

    Args:
      path: the prefix of a checkpoint, its `.index` file, a single-file checkpoint of the first
        format, a folder whose file `checkpoint` names the latest, or the folder of a SavedModel.

    Returns:
      Arrays by name. Checkpoints by objects name a variable as the program did, or by its place
      among the objects where that is empty or ambiguous; their optimisers are left out.

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
    """Imports TensorFlow without its banner and without its warnings about its own needs."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    # oneDNN announces itself whatever the level, and reading has no use for it.
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
    """The path without the endings of the checkpoint's files."""
    if not os.path.isdir(path):
        return path.removesuffix(".index")
    if os.path.isfile(_saved_variables(path) + ".index"):
        return _saved_variables(path)
    state = tf.train.get_checkpoint_state(path)
    if state is None:
        raise refusal(path, "must hold a readable file `checkpoint`")
    latest = state.model_checkpoint_path
    moved = os.path.join(path, os.path.basename(latest))  # the folder may have been, since
    for prefix in (latest, moved):
        if os.path.isfile(f"{prefix}.index"):
            return prefix
    raise refusal(path, f"must hold {os.path.basename(latest)}.index, which `checkpoint` names")


def _named(arrays: dict[str, np.ndarray], reader: Any) -> dict[str, np.ndarray]:
    """Arrays by the variables' names instead of by keys."""
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
        # An export may hold a variable twice, from two places among the objects.
        if all(np.array_equal(arrays[first], arrays[key]) for key in others):
            named[name] = arrays[first]
        else:
            named |= {key.removesuffix(_KEY_END): arrays[key] for key in (first, *others)}
    return named
