"""Puts the state of a run on the local devices, with classifiers whole or split over them."""

from typing import Any

import jax
import ml_collections
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delg_jax.models.class_shards import ClassShards, map_split
from delg_jax.training.optimizer import TrainState

AXIS = "batch"  # of all devices of all processes


def class_shards(config: ml_collections.ConfigDict) -> ClassShards | None:
    """How `config.train.shard_classifier` splits the classes over the devices of this process."""
    if not config.train.shard_classifier:
        return None
    classes = max(config.model.num_classes, 1)
    return ClassShards(classes, AXIS, jax.local_device_count(), jax.process_count())


def place(state: TrainState, shards: ClassShards | None = None) -> TrainState:
    """Puts a state on the local devices, placed as after a step, which saves a compilation.

    Args:
      state: with whole classifiers, as checkpoints hold it.
      shards: how the classes are split; None to put everything on every device.

    Returns:
      The state; with shards, arrays with an axis of classes [..., C] become
      [local devices, ..., classes of a device].
    """
    mesh = Mesh(np.asarray(jax.local_devices()), (AXIS,))
    everywhere = NamedSharding(mesh, PartitionSpec())
    if shards is None:
        return jax.device_put(state, everywhere)
    one_each = NamedSharding(mesh, PartitionSpec(AXIS))
    split = map_split(lambda leaf: split_classes(np.asarray(leaf), shards), state)
    placed = jax.tree.map(
        lambda axis: everywhere if axis is None else one_each,
        axes(state, shards),
        is_leaf=lambda axis: axis is None,
    )
    return jax.device_put(split, placed)


def to_host(state: TrainState, shards: ClassShards | None = None) -> TrainState:
    """The inverse of `place`: a state with whole classifiers, in NumPy arrays."""
    state = jax.device_get(state)
    if shards is None:
        return state
    return map_split(lambda leaf: join_classes(leaf, shards.classes), state)


def axes(state: TrainState, shards: ClassShards | None = None) -> Any:
    """The argument `in_axes` of `pmap` for a state: 0 for shards, None for the rest."""
    if shards is None:
        return None
    split = map_split(lambda _: True, jax.tree.map(lambda _: False, state))
    return jax.tree.map(lambda has_classes: 0 if has_classes else None, split)


def split_classes(array: np.ndarray, shards: ClassShards) -> np.ndarray:
    """Splits [..., C] into [devices, ..., classes of a device], padded with zeros."""
    missing = shards.devices * shards.per_device - shards.classes
    padded = np.pad(array, [(0, 0)] * (array.ndim - 1) + [(0, missing)])
    split = padded.reshape(*array.shape[:-1], shards.devices, shards.per_device)
    return np.ascontiguousarray(np.moveaxis(split, -2, 0))


def join_classes(array: np.ndarray, classes: int) -> np.ndarray:
    """The inverse of `split_classes`: [devices, ..., classes of a device] to [..., C]."""
    joined = np.moveaxis(array, 0, -2)
    return joined.reshape(*joined.shape[:-2], -1)[..., :classes]
