"""A training step and an evaluation step over all devices, and the state placed on them."""

import dataclasses
import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import traverse_util
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delg_jax.losses import LossWeights, total_loss
from delg_jax.models.class_shards import ClassShards, map_split, norm
from delg_jax.models.delg import Delg
from delg_jax.training import feature_cache, health
from delg_jax.training.optimizer import Penalty, TrainState

AXIS = "batch"  # of all devices of all processes
Metrics = dict[str, jax.Array]
_QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}
_NORMS = ("gradient_norm", "momentum_norm", "parameter_norm")
# Metrics of the steps that log
DETAILS = (*_NORMS, *(f"attention_{name}" for name in _QUANTILES), "attention_mean")


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    logs: jax.Array | bool,
    module: Delg,
    tx: optax.GradientTransformation,
    weights: LossWeights,
    penalty: Penalty | None = None,
    accumulation_steps: int = 1,
) -> tuple[TrainState, Metrics]:
    """Takes one step on this device's part of a batch; gradients are averaged over `AXIS`.

    Args:
      state: before the step, the same on every device except for shards of classifiers.
      batch: `image` uint8 [B, H, W, 3], or `conv4` and `conv5` of a frozen backbone, and `label`
        int32 [B].
      logs: bool scalar, the same on every device, whether to compute norms, attention quantiles and
        which tensor is not finite. It does not change the state.
      module: the network; with `class_shards`, classifiers in `state` are this device's shards.
      tx: the optimiser.
      weights: of the losses.
      penalty: loss term of the parameters alone; None for none.
      accumulation_steps: sub-batches whose gradients are computed one after the other.

    Returns:
      The state after the step and scalar metrics, the same on every device. `nonfinite` is the
      position in `health.watched` of the first tensor with a value that is not finite, or -1.
      Without `logs`, it covers the losses only, and what `logs` asks for is NaN.
    """
    shards = module.class_shards
    loss = functools.partial(_loss, module=module, weights=weights)
    gradients, updated, metrics, scores = _accumulate_gradients(
        loss, state, batch, accumulation_steps
    )
    updated, metrics = jax.lax.pmean((updated, jax.tree.map(jnp.mean, metrics)), AXIS)
    stats = _merge(state.batch_stats, updated)
    gradients = (
        jax.lax.pmean(gradients, AXIS) if shards is None else shards.mean_gradients(gradients)
    )
    if penalty is not None:
        metrics["decay_loss"], decay = penalty(state.params)
        metrics["loss"] += metrics["decay_loss"]
        gradients = jax.tree.map(jnp.add, gradients, decay)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = TrainState(state.step + 1, params, stats, opt_state)

    def details() -> Metrics:
        found = {} if scores is None else attention_summary(jax.lax.all_gather(scores, AXIS))
        # Not the updates: naming them here would keep another copy of all parameters
        momentum = optax.tree.get(opt_state, "trace")
        trees = (gradients, momentum, params)
        found |= {n: norm(tree, shards) for n, tree in zip(_NORMS, trees, strict=True)}
        watched = health.watched(metrics, gradients, state.variables)
        return found | {"nonfinite": health.first_nonfinite(watched, AXIS)}

    def only_losses() -> Metrics:
        watched = health.watched(metrics, {}, {})
        names = [n for n in DETAILS if n in _NORMS or scores is not None]
        return dict.fromkeys(names, jnp.full((), jnp.nan)) | {
            "nonfinite": health.first_nonfinite(watched, AXIS)
        }

    # One program for both, so that a step gives the same bits whether it logs or not
    return state, metrics | jax.lax.cond(logs, details, only_losses)


def _loss(params: Any, stats: Any, batch: dict[str, jax.Array], module: Delg, weights: LossWeights):
    """Mean loss of a batch; also updated BatchNorm statistics, metrics and attention scores."""
    method, inputs = "classify", [batch.get("image")]
    if "image" not in batch:
        method, inputs = "classify_maps", [batch[name] for name in feature_cache.MAPS]
    outputs, changed = module.apply(
        {"params": params, "batch_stats": stats},
        *inputs,
        train=True,
        which=weights.which,
        method=method,
        mutable=["batch_stats"],
    )
    loss, metrics = total_loss(
        outputs, batch["label"], weights, module.stop_gradient, module.class_shards
    )
    metrics["sparsity_conv4"] = sparsity(outputs.conv4)
    if weights.which != "local":  # which does not need conv5
        metrics["sparsity_conv5"] = sparsity(outputs.conv5)
    updated = _updated(stats, changed.get("batch_stats", {}))
    return jnp.mean(loss), (updated, metrics, outputs.attention)


def _updated(before: Any, after: Any) -> dict[tuple[str, ...], jax.Array]:
    """Statistics by path, without the frozen ones: their mean over devices would round them."""
    old, new = traverse_util.flatten_dict(before), traverse_util.flatten_dict(after)
    # Flax returns what a module does not assign as the very array that it was given
    return {path: leaf for path, leaf in new.items() if leaf is not old[path]}


def _merge(stats: Any, updated: dict[tuple[str, ...], jax.Array]) -> Any:
    return traverse_util.unflatten_dict(traverse_util.flatten_dict(stats) | updated)


def _accumulate_gradients(
    loss: Callable, state: TrainState, batch: dict[str, jax.Array], steps: int
) -> tuple[Any, Any, Metrics, jax.Array | None]:
    """Gradients averaged over sub-batches; also updated statistics, metrics and attention."""
    gradient: Callable[..., Any] = jax.grad(loss, has_aux=True)
    if steps == 1:
        gradients, (updated, metrics, scores) = gradient(state.params, state.batch_stats, batch)
        return gradients, updated, metrics, scores

    def add(carry: tuple[Any, Any], sub_batch: dict[str, jax.Array]):
        total, stats = carry
        gradients, others = gradient(state.params, stats, sub_batch)
        return (jax.tree.map(jnp.add, total, gradients), _merge(stats, others[0])), others

    batch = jax.tree.map(lambda x: x.reshape(steps, len(x) // steps, *x.shape[1:]), batch)
    start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
    # On a CPU, convolutions inside a loop take ten times as long
    unroll = steps if jax.default_backend() == "cpu" else 1
    (total, _), (updated, metrics, scores) = jax.lax.scan(add, start, batch, unroll=unroll)
    updated = jax.tree.map(lambda x: x[-1], updated)
    return jax.tree.map(lambda x: x / steps, total), updated, metrics, scores


def eval_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    module: Delg,
    weights: LossWeights,
    penalty: Penalty | None = None,
) -> tuple[Metrics, jax.Array | None]:
    """Sums losses and accuracies over all devices; the loss has all terms of the training loss.

    Args:
      state: the state to evaluate.
      batch: `image` uint8 [B, H, W, 3], `label` int32 [B], `valid` bool [B].
      module: the network.
      weights: of the losses.
      penalty: loss term of the parameters alone; None for none.

    Returns:
      Sums over valid images by metric name, with their `count`; and the attention scores of this
      device's images, float32 [B, H, W], None without a local head.
    """
    outputs: Any = module.apply(
        state.variables, batch["image"], which=weights.which, method="classify"
    )
    _, metrics = total_loss(outputs, batch["label"], weights, True, module.class_shards)
    if penalty is not None:
        decay, _ = penalty(state.params)
        metrics["decay_loss"] = jnp.broadcast_to(decay, metrics["loss"].shape)
        metrics["loss"] += metrics["decay_loss"]
    metrics["count"] = jnp.ones_like(metrics["loss"])
    sums = {name: jnp.sum(jnp.where(batch["valid"], value, 0.0)) for name, value in metrics.items()}
    return jax.lax.psum(sums, AXIS), outputs.attention


@dataclasses.dataclass(frozen=True)
class ParallelStep:
    """`train_step` over all devices.

    Attributes:
      mapped: a function of a state, a batch [local devices, B, ...] and `logs`; returns the leaves
        of the next state, and the metrics.
      structure: of the state.
    """

    mapped: Any
    structure: Any

    def __call__(
        self, state: TrainState, batch: dict[str, jax.Array], logs: bool
    ) -> tuple[TrainState, Metrics]:
        """Takes a step; donates the state."""
        leaves, metrics = self.mapped(state, batch, logs)
        return jax.tree.unflatten(self.structure, leaves), metrics

    def lower(self, state: Any, batch: Any, logs: Any) -> Any:
        """The program for arguments of these shapes."""
        return self.mapped.lower(state, batch, logs)


def parallel_train_step(
    state: TrainState,
    module: Delg,
    tx: optax.GradientTransformation,
    weights: LossWeights,
    penalty: Penalty | None = None,
    accumulation_steps: int = 1,
) -> ParallelStep:
    """Prepares `train_step` for all devices.

    Args:
      state: as `place` returns it; only its structure is used.
      module: as of `train_step`, as the following arguments.
      tx: the optimiser.
      weights: of the losses.
      penalty: loss term of the parameters alone.
      accumulation_steps: sub-batches.
    """

    def step(state: TrainState, batch: dict[str, jax.Array], logs: jax.Array):
        state, metrics = train_step(
            state, batch, logs, module, tx, weights, penalty, accumulation_steps
        )
        return tuple(jax.tree.leaves(state)), metrics

    axes = _axes(state, module.class_shards)
    # With several processes, pmap needs hashable output axes, which a tree of dicts is not
    flat = axes and tuple(jax.tree.leaves(axes, is_leaf=lambda axis: axis is None))
    mapped = jax.pmap(
        step, AXIS, in_axes=(axes, 0, None), out_axes=(flat, None), donate_argnums=(0,)
    )
    return ParallelStep(mapped, jax.tree.structure(state))


def parallel_eval_step(
    state: TrainState, module: Delg, weights: LossWeights, penalty: Penalty | None = None
):
    """`eval_step` over all devices, for states of this structure and [local devices, B, ...]."""
    step = functools.partial(eval_step, module=module, weights=weights, penalty=penalty)
    axes = _axes(state, module.class_shards)
    return jax.pmap(step, AXIS, in_axes=(axes, 0), out_axes=(None, 0))


def class_shards(num_classes: int, split: bool) -> ClassShards | None:
    """How the classifiers are split over all devices; None if `split` is False."""
    if not split:
        return None
    return ClassShards(max(num_classes, 1), AXIS, jax.local_device_count(), jax.process_count())


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
        _axes(state, shards),
        is_leaf=lambda axis: axis is None,
    )
    return jax.device_put(split, placed)


def to_host(state: TrainState, shards: ClassShards | None = None) -> TrainState:
    """The inverse of `place`: a state with whole classifiers, in NumPy arrays."""
    state = jax.device_get(state)
    if shards is None:
        return state
    return map_split(lambda leaf: join_classes(leaf, shards.classes), state)


def _axes(state: TrainState, shards: ClassShards | None = None) -> Any:
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


def split_over_devices(batch: dict[str, Any]) -> dict[str, Any]:
    """Reshapes [B, ...] to [devices, B / devices, ...].

    Raises:
      ValueError: if B is not a multiple of the number of local devices.
    """
    devices = jax.local_device_count()
    size = len(batch["label"])
    if size % devices:
        raise ValueError(f"batch (={size}) must be a multiple of the {devices} local devices")
    return {name: x.reshape(devices, size // devices, *x.shape[1:]) for name, x in batch.items()}


def sparsity(maps: jax.Array) -> jax.Array:
    """Fraction of activations that are zero (Figure 3), float32 scalar."""
    return jnp.mean(maps == 0)


def attention_summary(scores: jax.Array) -> dict[str, jax.Array]:
    """Mean, extremes and quartiles of attention scores of any shape, by name."""
    values = jnp.quantile(scores.ravel(), jnp.asarray(list(_QUANTILES.values())))
    summary = {f"attention_{name}": values[i] for i, name in enumerate(_QUANTILES)}
    return summary | {"attention_mean": jnp.mean(scores)}
