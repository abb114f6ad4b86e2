"""The training state, and the optimiser that updates it."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, Self

import jax
import jax.numpy as jnp
import ml_collections
import optax
from flax import struct, traverse_util

from delg_jax.errors import WrongField, fields_of, require_choice, require_least
from delg_jax.models.class_shards import ClassShards, norm, squared_norm
from delg_jax.models.delg import BACKBONES, HEADS

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


@dataclasses.dataclass(frozen=True)
class OptimizerSettings:
    """What learns, and how fast; `config.train` has the same names.

    Attributes:
      steps: number of updates.
      learning_rate: initial value, or that after the warm-up.
      warmup_steps: updates in which the learning rate grows from 0.
      momentum: of SGD.
      clip_norm: largest global norm of the gradients.
      weight_decay: w in w / 2 times the squared norm of the kernels.
      heads: joint | global | local, those that learn.
      freeze_backbone: whether the backbone stays as it is.
      arcface_scale_learned: whether gamma learns.
    """

    steps: int
    learning_rate: float
    warmup_steps: int = 0
    momentum: float = 0.9
    clip_norm: float = 10.0
    weight_decay: float = 0.0
    heads: str = "joint"
    freeze_backbone: bool = False
    arcface_scale_learned: bool = True

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if not 0 <= self.warmup_steps < self.steps:
            rule = f"must be from 0 to below config.train.steps (={self.steps})"
            raise WrongField("warmup_steps", self.warmup_steps, rule)
        require_least(self, 0, "weight_decay")

    @classmethod
    def of(cls, train: ml_collections.ConfigDict) -> Self:
        """The settings of `config.train`; raises a UserError for a wrong value."""
        require_choice("config.train.heads", train.heads, HEADS)
        with fields_of("config.train", train):
            return cls(**{field.name: train[field.name] for field in dataclasses.fields(cls)})

    def learns(self, path: Sequence[Any]) -> bool:
        """Whether the parameter at `path` learns."""
        if path[0] in BACKBONES and (self.freeze_backbone or self.heads == "local"):
            return False
        is_scale = path[0] == "global_classifier" and path[-1] == "scale"
        if is_scale and not self.arcface_scale_learned:
            return False
        is_local = path[0] in _LOCAL_PARTS
        return {"joint": True, "local": is_local, "global": not is_local}[self.heads]


def learning_rate(settings: OptimizerSettings) -> optax.Schedule:
    """Linear decay to zero, after a linear warm-up (section 4.1)."""
    warmup_steps = settings.warmup_steps
    decay = optax.linear_schedule(settings.learning_rate, 0.0, settings.steps - warmup_steps)
    if not warmup_steps:
        return decay
    warmup = optax.linear_schedule(0.0, settings.learning_rate, warmup_steps)
    return optax.join_schedules([warmup, decay], [warmup_steps])


def create_optimizer(
    settings: OptimizerSettings, shards: ClassShards | None = None
) -> optax.GradientTransformation:
    """SGD with momentum and gradient clipping; fixed parameters are not updated.

    Weight decay is part of the loss (`penalty`), so its gradient is clipped too.

    Args:
      settings: what learns, and how fast.
      shards: how the classifiers are split over devices; None if they are whole.

    Returns:
      The gradient transformation for the parameters of a `Delg`. Its state does not depend on
      `shards`.
    """
    chain = optax.chain(
        _clip_by_global_norm(settings.clip_norm, shards),
        optax.sgd(learning_rate(settings), momentum=settings.momentum),
    )

    def labels(params: Any) -> Any:
        return traverse_util.path_aware_map(
            lambda path, _: "learn" if settings.learns(path) else "fixed", params
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


def penalty(settings: OptimizerSettings, shards: ClassShards | None = None) -> Penalty | None:
    """The L2 penalty: weight_decay / 2 times the squared norm of the kernels that learn.

    Biases, BatchNorm and the scale of ArcFace are not penalised.

    Args:
      settings: what learns, and its decay.
      shards: how the classifiers are split over devices; None if they are whole.

    Returns:
      A function from parameters to the penalty, a scalar, and its gradients; None without weight
      decay.
    """
    weight_decay = settings.weight_decay
    if not weight_decay:
        return None

    def compute(params: Any) -> tuple[jax.Array, Any]:
        """The penalty of parameters, and its gradients."""
        kernels = traverse_util.path_aware_map(
            lambda path, leaf: (
                leaf if path[-1] == "kernel" and settings.learns(path) else jnp.zeros_like(leaf)
            ),
            params,
        )
        gradients = jax.tree.map(lambda kernel: weight_decay * kernel, kernels)
        return weight_decay / 2 * squared_norm(kernels, shards), gradients

    return compute


def create_state(variables: dict[str, Any], tx: optax.GradientTransformation) -> TrainState:
    """Makes the state before the first step."""
    params = jax.tree.map(jnp.asarray, variables["params"])
    stats = jax.tree.map(jnp.asarray, variables["batch_stats"])
    return TrainState(jnp.zeros((), jnp.int32), params, stats, tx.init(params))
