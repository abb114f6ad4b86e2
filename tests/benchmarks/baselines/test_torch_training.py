import jax
import numpy as np
import pytest

from delg_jax.benchmarks.baselines.torch_training import TorchTrainer
from delg_jax.benchmarks.cases import train
from delg_jax.models.variables import initialize
from delg_jax.training import optimizer, step


def test_takes_the_steps_that_ours_takes(rng):
    pytest.importorskip("torch", reason="the peer")
    module = train.network("tiny").clone(num_classes=3)
    variables = initialize(module, jax.random.key(0))
    images = rng.integers(0, 256, (2, 48, 48, 3), np.uint8)
    labels = np.array([0, 2], np.int32)
    tx = optimizer.create_optimizer(train._TRAIN)
    ours, losses = optimizer.create_state(variables, tx), []
    update = jax.jit(
        jax.vmap(
            lambda s, b: step.train_step(s, b, True, module, tx, train._WEIGHTS),
            in_axes=(None, 0),
            out_axes=(None, None),
            axis_name=step.AXIS,
        )
    )
    for _ in range(3):
        ours, metrics = update(ours, {"image": images[None], "label": labels[None]})
        losses.append(float(metrics["loss"]))
    peer = TorchTrainer(module, variables, train._WEIGHTS, train._RATE, train._CLIP, "float32")
    found = [peer(images, labels) for _ in range(3)]
    np.testing.assert_allclose(found, losses, rtol=2e-2)
    assert losses[0] != losses[2]
