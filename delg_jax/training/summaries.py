"""What a step says about attention and feature maps (the summaries of the official code)."""

import jax
import jax.numpy as jnp

_QUANTILES = {"min": 0.0, "p25": 0.25, "p50": 0.5, "p75": 0.75, "max": 1.0}


def sparsity(maps: jax.Array) -> jax.Array:
    """Share of activations that are zero (Figure 3), float32 scalar."""
    return jnp.mean(maps == 0)


def attention_summary(scores: jax.Array) -> dict[str, jax.Array]:
    """Mean, extremes and quartiles of attention scores of any shape, by name."""
    values = jnp.quantile(scores.ravel(), jnp.asarray(list(_QUANTILES.values())))
    summary = {f"attention_{name}": values[i] for i, name in enumerate(_QUANTILES)}
    return summary | {"attention_mean": jnp.mean(scores)}
