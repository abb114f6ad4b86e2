"""Checkpoints as a training run leaves them."""

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.training.checkpoints import FOLDER, Checkpoints
from delg_jax.training.optimizer import OptimizerSettings, create_optimizer, create_state
from delg_jax.workdir import Output

CLASSES = 4


def state_of(variables, config, step=0):
    state = create_state(variables, create_optimizer(OptimizerSettings.of(config.train)))
    return state.replace(step=jnp.asarray(step, jnp.int32))


def save(workdir, config, variables, steps=(3,), keep=10):
    """Checkpoints of a run as training leaves them; later ones hold larger numbers."""
    Output.of(workdir / FOLDER, config, ("model", "train")).claim()
    with Checkpoints(workdir / FOLDER, config.model, keep) as checkpoints:
        for step in steps:
            scaled = times(step, variables)
            checkpoints.save(state_of(scaled, config, step))
    return workdir


def save_with_metrics(workdir, config, variables, records, **options):
    with Checkpoints(workdir / FOLDER, config.model, 1, **options) as checkpoints:
        for step, metrics in records.items():
            checkpoints.save(state_of(times(step, variables), config, step), metrics)
    return sorted(int(p.name) for p in (workdir / FOLDER).iterdir() if p.name.isdigit())


def times(factor, tree):
    return jax.tree.map(lambda leaf: np.float32(factor) * leaf, tree)


def assert_same(found, expected):
    jax.tree.map(np.testing.assert_array_equal, found, expected)
