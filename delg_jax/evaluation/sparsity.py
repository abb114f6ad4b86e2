"""Activation sparsity of a network's feature maps (paper, Figure 3), over any images."""

import functools
from collections.abc import Iterable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.models.delg import Delg
from delg_jax.training import step

MAPS = ("conv4", "conv5")


def activation_sparsity(
    module: Delg, variables: Any, batches: Iterable[np.ndarray]
) -> dict[str, float]:
    """Share of activations that are zero, as training counts it.

    Args:
      module: the network.
      variables: its parameters and BatchNorm statistics.
      batches: images uint8 [B, H, W, 3]; each shape is compiled once. How images are batched does
        not matter: every activation weighs the same.

    Returns:
      The share by `MAPS`; NaN without images.
    """
    zeros, counts = np.zeros(len(MAPS)), np.zeros(len(MAPS))
    for images in batches:
        shares, sizes = _shares(module, variables, jnp.asarray(images))
        zeros += np.asarray(shares, np.float64) * np.asarray(sizes)
        counts += np.asarray(sizes)
    return {
        name: float(zero / count) if count else float("nan")
        for name, zero, count in zip(MAPS, zeros, counts, strict=True)
    }


@functools.partial(jax.jit, static_argnames="module")
def _shares(
    module: Delg, variables: Any, images: jax.Array
) -> tuple[tuple[jax.Array, ...], tuple[int, ...]]:
    """Shares of zeros of both maps, and how many activations these have."""
    outputs = module.apply(variables, images.astype(jnp.float32))
    maps = tuple(getattr(outputs, name) for name in MAPS)
    return tuple(map(step.sparsity, maps)), tuple(activations.size for activations in maps)
