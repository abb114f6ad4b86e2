"""A training step and an evaluation step, over all devices of all processes."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from delg_jax.losses import LossWeights, total_loss
from delg_jax.models.delg import Delg
from delg_jax.training import feature_cache, health
from delg_jax.training.optimizer import TrainState

AXIS = "batch"
Metrics = dict[str, jax.Array]
_QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}


def loss_weights(train: ml_collections.ConfigDict) -> LossWeights:
    """The loss weights of `config.train`; zero for a head that does not learn."""
    return LossWeights(
        global_loss=train.global_weight * (train.heads != "local"),
        reconstruction=train.reconstruction_weight * (train.heads != "global"),
        attention=train.attention_weight * (train.heads != "global"),
        margin=train.arcface_margin,
    )


def train_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    module: Delg,
    tx: optax.GradientTransformation,
    weights: LossWeights,
    penalty: Callable[[Any], jax.Array] | None = None,
    accumulation_steps: int = 1,
) -> tuple[TrainState, Metrics]:
    """Takes one step on this device's part of a batch; gradients are averaged over `AXIS`.

    Args:
      state: before the step, the same on every device.
      batch: `image` uint8 [B, H, W, 3], or `conv4` and `conv5` of a frozen backbone, and `label`
        int32 [B].
      module: the network.
      tx: the optimiser.
      weights: of the losses.
      penalty: loss term of the parameters alone; None for none.
      accumulation_steps: sub-batches whose gradients are computed one after the other.

    Returns:
      The state after the step and scalar metrics, the same on every device. `nonfinite` is the
      position in `health.watched` of the first tensor with a value that is not finite, or -1.
    """
    loss = functools.partial(_loss, module=module, weights=weights)
    gradients, stats, metrics, scores = _accumulate_gradients(
        loss, state, batch, accumulation_steps
    )
    gradients, stats = jax.lax.pmean((gradients, stats), AXIS)
    metrics = jax.lax.pmean(jax.tree.map(jnp.mean, metrics), AXIS)
    if penalty is not None:
        metrics["decay_loss"], decay = jax.value_and_grad(penalty)(state.params)
        metrics["loss"] += metrics["decay_loss"]
        gradients = jax.tree.map(jnp.add, gradients, decay)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    params = optax.apply_updates(state.params, updates)
    state = TrainState(state.step + 1, params, stats, opt_state)
    if scores is not None:
        metrics |= attention_summary(jax.lax.all_gather(scores, AXIS))
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    metrics["update_norm"] = optax.tree.norm(updates)
    metrics["parameter_norm"] = optax.tree.norm(params)
    watched = health.watched(metrics, gradients, state.variables)
    return state, {**metrics, "nonfinite": health.first_nonfinite(watched)}


def _loss(params: Any, stats: Any, batch: dict[str, jax.Array], module: Delg, weights: LossWeights):
    """Mean loss of a batch, and BatchNorm statistics, metrics and attention scores."""
    with feature_cache.images_of(batch) as images:
        (outputs, scores, logits), changed = module.apply(
            {"params": params, "batch_stats": stats},
            images,
            train=True,
            method="classify",
            mutable=["batch_stats"],
        )
    loss, metrics = total_loss(
        outputs, scores, logits, batch["label"], weights, module.stop_gradient
    )
    metrics["sparsity_conv4"] = sparsity(outputs.conv4)
    metrics["sparsity_conv5"] = sparsity(outputs.conv5)
    stats = {**stats, **changed.get("batch_stats", {})}
    return jnp.mean(loss), (stats, metrics, outputs.attention)


def _accumulate_gradients(
    loss: Callable, state: TrainState, batch: dict[str, jax.Array], steps: int
) -> tuple[Any, Any, Metrics, jax.Array | None]:
    """Gradients averaged over sub-batches; also BatchNorm statistics, metrics and attention."""
    gradient: Callable[..., Any] = jax.grad(loss, has_aux=True)
    if steps == 1:
        gradients, (stats, metrics, scores) = gradient(state.params, state.batch_stats, batch)
        return gradients, stats, metrics, scores

    def add(carry: tuple[Any, Any], sub_batch: dict[str, jax.Array]):
        total, stats = carry
        gradients, (stats, metrics, scores) = gradient(state.params, stats, sub_batch)
        return (jax.tree.map(jnp.add, total, gradients), stats), (metrics, scores)

    batch = jax.tree.map(lambda x: x.reshape(steps, len(x) // steps, *x.shape[1:]), batch)
    start = (jax.tree.map(jnp.zeros_like, state.params), state.batch_stats)
    # On a CPU, convolutions inside a loop take ten times as long
    unroll = steps if jax.default_backend() == "cpu" else 1
    (total, stats), (metrics, scores) = jax.lax.scan(add, start, batch, unroll=unroll)
    return jax.tree.map(lambda x: x / steps, total), stats, metrics, scores


def eval_step(
    state: TrainState,
    batch: dict[str, jax.Array],
    module: Delg,
    weights: LossWeights,
    penalty: Callable[[Any], jax.Array] | None = None,
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
    result: Any = module.apply(state.variables, batch["image"], method="classify")
    outputs, scores, logits = result
    _, metrics = total_loss(outputs, scores, logits, batch["label"], weights, True)
    if penalty is not None:
        metrics["decay_loss"] = jnp.broadcast_to(penalty(state.params), metrics["loss"].shape)
        metrics["loss"] += metrics["decay_loss"]
    metrics["count"] = jnp.ones_like(metrics["loss"])
    sums = {name: jnp.sum(jnp.where(batch["valid"], value, 0.0)) for name, value in metrics.items()}
    return jax.lax.psum(sums, AXIS), outputs.attention


def parallel_train_step(
    module: Delg,
    tx: optax.GradientTransformation,
    weights: LossWeights,
    penalty: Callable[[Any], jax.Array] | None = None,
    accumulation_steps: int = 1,
):
    """`train_step` over all devices: one state (donated), batch [local devices, B, ...]."""
    step = functools.partial(
        train_step,
        module=module,
        tx=tx,
        weights=weights,
        penalty=penalty,
        accumulation_steps=accumulation_steps,
    )
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,))


def parallel_eval_step(
    module: Delg, weights: LossWeights, penalty: Callable[[Any], jax.Array] | None = None
):
    """`eval_step` over all devices: batch [local devices, B, ...]."""
    step = functools.partial(eval_step, module=module, weights=weights, penalty=penalty)
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, 0))


def replicate(state: TrainState) -> TrainState:
    """Puts the state on every local device, placed as after a step, which saves a compilation."""
    devices = jax.sharding.Mesh(np.asarray(jax.local_devices()), (AXIS,))
    return jax.device_put(state, jax.sharding.NamedSharding(devices, jax.sharding.PartitionSpec()))


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
