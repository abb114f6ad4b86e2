"""The training state, and the optimiser that updates it."""

from collections.abc import Callable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct, traverse_util

from delg_jax.errors import UserError, require_choice
from delg_jax.models.class_shards import ClassShards, norm, squared_norm
from delg_jax.models.delg import BACKBONES

Penalty = Callable[[Any], tuple[jax.Array, Any]]  # parameters to a loss and its gradients
_LOCAL_PARTS = ("attend", "reduce", "local_classifier")


@struct.dataclass
class TrainState:
    """The state of a training run.

    Attributes:
      step: int32 scalar, number of updates so far.
      params: parameters of the network.
      batch_stats: running statistics of BatchNorm.
      opt_state: of the optimiser.
    """

    step: jax.Array
    params: Any
    batch_stats: Any
    opt_state: Any

    @property
    def variables(self) -> dict[str, Any]:
        """The variables that the network is applied with."""
        return {"params": self.params, "batch_stats": self.batch_stats}


def learning_rate(train: ml_collections.ConfigDict) -> optax.Schedule:
    """Linear decay to zero, after a linear warm-up (section 4.1)."""
    if not 0 <= train.warmup_steps < train.steps:
        rule = f"must be from 0 to below config.train.steps (={train.steps})"
        raise UserError("config.train.warmup_steps", train.warmup_steps, rule)
    decay = optax.linear_schedule(train.learning_rate, 0.0, train.steps - train.warmup_steps)
    if not train.warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, train.learning_rate, train.warmup_steps)
    return optax.join_schedules([warmup, decay], [train.warmup_steps])


def is_trained(path: Sequence[Any], train: ml_collections.ConfigDict) -> bool:
    """Whether `config.train` lets the parameter at `path` learn."""
    if path[0] in BACKBONES and (train.freeze_backbone or train.heads == "local"):
        return False
    if path[-1] == "scale" and path[0] == "global_classifier" and not train.arcface_scale_learned:
        return False
    is_local = path[0] in _LOCAL_PARTS
    return {"joint": True, "local": is_local, "global": not is_local}[train.heads]


def create_optimizer(
    train: ml_collections.ConfigDict, shards: ClassShards | None = None
) -> optax.GradientTransformation:
    """SGD with momentum and gradient clipping; fixed parameters are not updated.

    Weight decay is part of the loss (`penalty`), so its gradient is clipped too.

    Args:
      train: the `config.train` tree.
      shards: how the classifiers are split over devices; None if they are whole.

    Returns:
      The gradient transformation for the parameters of a `Delg`. Its state does not depend on
      `shards`.

    Raises:
      UserError: if `heads` is unknown or the warm-up is too long.
    """
    require_choice("config.train.heads", train.heads, ("joint", "global", "local"))
    chain = optax.chain(
        _clip_by_global_norm(train.clip_norm, shards),
        optax.sgd(learning_rate(train), momentum=train.momentum),
    )

    def labels(params: Any) -> Any:
        return traverse_util.path_aware_map(
            lambda path, _: "learn" if is_trained(path, train) else "fixed", params
        )

    return optax.multi_transform({"learn": chain, "fixed": optax.set_to_zero()}, labels)


def _clip_by_global_norm(
    largest: float, shards: ClassShards | None
) -> optax.GradientTransformation:
    """`optax.clip_by_global_norm` with a norm that counts every class once."""

    def update(updates: Any, state: optax.EmptyState, _: Any = None) -> tuple[Any, Any]:
        found = norm(updates, shards)
        within = found < largest
        clipped = jax.tree.map(lambda x: jnp.where(within, x, x / found * largest), updates)
        return clipped, state

    return optax.GradientTransformation(lambda _: optax.EmptyState(), update)


def penalty(train: ml_collections.ConfigDict, shards: ClassShards | None = None) -> Penalty | None:
    """The L2 penalty: weight_decay / 2 times the squared norm of the kernels that learn.

    Biases, BatchNorm and the scale of ArcFace are not penalised.

    Args:
      train: the `config.train` tree.
      shards: how the classifiers are split over devices; None if they are whole.

    Returns:
      A function from parameters to the penalty, a scalar, and its gradients; None without weight
      decay.

    Raises:
      UserError: if `weight_decay` is negative.
    """
    if train.weight_decay < 0:
        raise UserError("config.train.weight_decay", train.weight_decay, "must not be negative")
    if not train.weight_decay:
        return None

    def compute(params: Any) -> tuple[jax.Array, Any]:
        """The penalty of parameters, and its gradients."""
        kernels = traverse_util.path_aware_map(
            lambda path, leaf: (
                leaf if path[-1] == "kernel" and is_trained(path, train) else jnp.zeros_like(leaf)
            ),
            params,
        )
        gradients = jax.tree.map(lambda kernel: train.weight_decay * kernel, kernels)
        return train.weight_decay / 2 * squared_norm(kernels, shards), gradients

    return compute


def create_state(variables: dict[str, Any], tx: optax.GradientTransformation) -> TrainState:
    """Makes the state before the first step."""
    params = jax.tree.map(jnp.asarray, variables["params"])
    stats = jax.tree.map(jnp.asarray, variables["batch_stats"])
    return TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params))
