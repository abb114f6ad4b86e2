"""One update and one evaluation over all devices."""

import functools
from typing import Any

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np
import optax

from delg_jax.losses import LossWeights, total_loss
from delg_jax.models.delg import Delg
from delg_jax.training.state import TrainState

AXIS = "batch"


def loss_weights(train: ml_collections.ConfigDict) -> LossWeights:
    """The weights of `config.train`; a head that does not learn has none."""
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
) -> tuple[TrainState, dict[str, jax.Array]]:
    """Takes one step on this device's share of a batch; gradients are averaged over `AXIS`.

    Args:
      state: before the step, the same on every device.
      batch: `image` uint8 [B, H, W, 3] and `label` int32 [B].
      module: the network.
      tx: the optimiser.
      weights: of the losses.

    Returns:
      The state after the step and scalar metrics, the same on every device.
    """

    def loss_of(params: Any):
        """The mean loss, with new BatchNorm statistics and metrics beside it."""
        variables = {"params": params, "batch_stats": state.batch_stats}
        (outputs, scores, logits), changed = module.apply(
            variables, batch["image"], train=True, method="classify", mutable=["batch_stats"]
        )
        loss, metrics = total_loss(
            outputs, scores, logits, batch["label"], weights, module.stop_gradient
        )
        metrics["sparsity_conv4"] = jnp.mean(outputs.conv4 == 0)
        metrics["sparsity_conv5"] = jnp.mean(outputs.conv5 == 0)
        return jnp.mean(loss), (changed.get("batch_stats", {}), metrics)

    gradients, (stats, metrics) = jax.grad(loss_of, has_aux=True)(state.params)
    gradients, stats = jax.lax.pmean((gradients, stats), AXIS)
    updates, opt_state = tx.update(gradients, state.opt_state, state.params)
    metrics = jax.lax.pmean(jax.tree.map(jnp.mean, metrics), AXIS)
    metrics["gradient_norm"] = optax.tree.norm(gradients)
    metrics["update_norm"] = optax.tree.norm(updates)
    params = optax.apply_updates(state.params, updates)
    stats = {**state.batch_stats, **stats}
    return TrainState(state.step + 1, params, stats, opt_state), metrics


def eval_step(
    state: TrainState, batch: dict[str, jax.Array], module: Delg, weights: LossWeights
) -> dict[str, jax.Array]:
    """Sums losses and correct answers over all devices.

    Args:
      state: the state to evaluate.
      batch: `image` uint8 [B, H, W, 3], `label` int32 [B], `valid` bool [B].
      module: the network.
      weights: of the losses.

    Returns:
      Scalar sums over valid images by metric name, and `count`.
    """
    outputs, scores, logits = module.apply(state.variables, batch["image"], method="classify")
    _, metrics = total_loss(outputs, scores, logits, batch["label"], weights, True)
    metrics["count"] = jnp.ones_like(metrics["loss"])
    sums = {name: jnp.sum(value * batch["valid"]) for name, value in metrics.items()}
    return jax.lax.psum(sums, AXIS)


def parallel_train_step(module: Delg, tx: optax.GradientTransformation, weights: LossWeights):
    """`train_step` over local devices: state unstacked and donated, batch [devices, B, ...]."""
    step = functools.partial(train_step, module=module, tx=tx, weights=weights)
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=(None, None), donate_argnums=(0,))


def parallel_eval_step(module: Delg, weights: LossWeights):
    """`eval_step` over local devices, batch [devices, B, ...]."""
    step = functools.partial(eval_step, module=module, weights=weights)
    return jax.pmap(step, AXIS, in_axes=(None, 0), out_axes=None)


def replicate(state: TrainState) -> TrainState:
    """Puts the state on every local device, as the step leaves it, which saves a compilation."""
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
