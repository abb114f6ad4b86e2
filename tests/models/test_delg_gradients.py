"""Which loss reaches which part of the network (section 3.3)."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from configs import default
from delg_jax.losses import LossWeights, total_loss
from delg_jax.models.delg import build

LOCAL_PARTS = {"attend", "reduce", "local_classifier"}
LOSSES = ("global", "reconstruction", "attention")
WEIGHTS = LossWeights(1.0, 1.0, 1.0, margin=0.1)


@pytest.fixture
def images(rng):
    return rng.integers(0, 256, (4, 48, 48, 3), np.uint8)


@pytest.fixture
def gradients(images, random_variables, quick_jit):
    """A function that gives, for each loss, the names of all parameters with a gradient."""

    def compute(losses=LOSSES, options=None, **changes):
        model = default.get_config().model
        model.update(backbone="tiny", convention="torchvision", conv4_stride=16, num_classes=3)
        model.update(global_dim=8, attention_dim=6, local_dim=4, **changes)
        module = build(model, **(options or {}))
        variables = random_variables(module, images, method="classify")

        @quick_jit
        @jax.grad
        def gradient(params, weights):
            outputs = module.apply({**variables, "params": params}, images, method="classify")
            labels = jnp.asarray([0, 1, 2, 0])
            _, metrics = total_loss(outputs, labels, WEIGHTS, stop_target=True)
            found = [metrics.get(f"{name}_loss", jnp.zeros(4)) for name in LOSSES]
            return sum(w * jnp.mean(x) for w, x in zip(weights, found, strict=True))

        def touched(name):
            weights = [float(kind == name) for kind in LOSSES]
            flat = traverse_util.flatten_dict(gradient(variables["params"], weights))
            assert all(np.isfinite(leaf).all() for leaf in flat.values())
            return {path for path, leaf in flat.items() if leaf.any()}

        everything = set(traverse_util.flatten_dict(variables["params"]))
        return everything, {name: touched(name) for name in losses}

    return compute


def in_parts(paths, parts):
    return {path for path in paths if path[0] in parts}


def test_local_losses_stop_before_the_backbone(gradients):
    everything, touched = gradients(stop_gradient=True)
    assert touched["global"] == everything - in_parts(everything, LOCAL_PARTS)
    assert touched["attention"] == in_parts(everything, LOCAL_PARTS)
    assert touched["reconstruction"] == in_parts(everything, {"reduce"})


def test_without_stop_gradient_local_losses_reach_all_of_the_backbone_to_conv4(gradients):
    everything, touched = gradients(stop_gradient=False)
    assert touched["global"] == everything - in_parts(everything, LOCAL_PARTS)
    before_conv5 = {
        path for path in in_parts(everything, {"resnet"}) if not path[1].startswith("conv5")
    }
    assert touched["attention"] == before_conv5 | in_parts(everything, LOCAL_PARTS)
    assert touched["reconstruction"] == before_conv5 | in_parts(everything, {"reduce"})


def test_a_frozen_backbone_gets_no_gradient_at_all(gradients):
    everything, touched = gradients(options={"freeze_backbone": True}, stop_gradient=False)
    assert not any(in_parts(paths, {"resnet"}) for paths in touched.values())
    assert touched["global"] == in_parts(everything, {"whiten", "global_classifier"})


def test_only_a_learned_power_is_a_parameter_and_has_a_gradient(gradients):
    assert ("power",) not in gradients(losses=())[0]
    everything, touched = gradients(losses=("global", "attention"), gem_learned=True)
    assert ("power",) in everything
    assert ("power",) in touched["global"]
    assert ("power",) not in touched["attention"]


def test_a_layer_without_autoencoder_learns_by_attention_alone(gradients):
    everything, touched = gradients(("reconstruction", "attention"), dim_reduction="fc")
    assert touched["reconstruction"] == set()
    assert touched["attention"] == in_parts(everything, LOCAL_PARTS)


@pytest.mark.parametrize(
    ("options", "learns"),
    [
        ({}, {"resnet", "attend"}),
        ({"freeze_backbone": True}, {"attend"}),
        ({"freeze_norm": True}, set()),
    ],
)
def test_which_batch_norm_keeps_its_statistics(
    images, random_variables, quick_jit, options, learns
):
    model = default.get_config().model
    model.update(backbone="tiny", num_classes=3, global_dim=8, attention_dim=6, local_dim=4)
    module = build(model, **options)
    variables = random_variables(module, images, method="classify")
    train = quick_jit(
        lambda v: module.apply(v, images, train=True, mutable=["batch_stats"])[1]["batch_stats"]
    )
    before = traverse_util.flatten_dict(variables["batch_stats"])
    after = traverse_util.flatten_dict(train(variables))
    moved = {path for path in before if not np.allclose(before[path], after[path])}
    assert moved == in_parts(before, learns)
