import types

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.losses import (
    LossWeights,
    arcface_loss,
    is_correct,
    reconstruction_loss,
    softmax_loss,
    total_loss,
)

PAPER = LossWeights(global_loss=1.0, reconstruction=10.0, attention=1.0, margin=0.1)
LABELS = jnp.asarray([0, 2])


@pytest.fixture
def outputs(rng):
    """What the loss reads of a network's outputs."""
    conv4, restored = jnp.asarray(rng.normal(size=(2, 2, 3, 4, 5)), jnp.float32)
    return types.SimpleNamespace(conv4=conv4, reconstruction=restored)


@pytest.fixture
def scores(rng):
    return jnp.asarray(rng.uniform(-1, 1, (2, 3)), jnp.float32)


def test_total_of_the_paper(rng, outputs, scores):
    logits, scale = jnp.asarray(rng.normal(size=(2, 3)), jnp.float32), jnp.float32(30.0)
    total, metrics = total_loss(outputs, (scores, scale), logits, LABELS, PAPER, True)
    expected = {
        "global_loss": arcface_loss(scores, LABELS, scale, 0.1),
        "reconstruction_loss": reconstruction_loss(outputs.reconstruction, outputs.conv4),
        "attention_loss": softmax_loss(logits, LABELS),
        "global_accuracy": is_correct(scores, LABELS),
        "attention_accuracy": is_correct(logits, LABELS),
        "scale": [30.0, 30.0],
        "loss": total,
    }
    assert set(metrics) == set(expected)
    for name, value in expected.items():
        assert metrics[name].dtype == jnp.float32
        np.testing.assert_allclose(metrics[name], value, rtol=1e-6)
    parts = [expected[f"{name}_loss"] for name in ("global", "reconstruction", "attention")]
    np.testing.assert_allclose(total, parts[0] + 10 * parts[1] + parts[2], rtol=1e-5)


def test_each_weight_belongs_to_its_loss(outputs, scores):
    for field, name in (
        ("global_loss", "global_loss"),
        ("reconstruction", "reconstruction_loss"),
        ("attention", "attention_loss"),
    ):
        weights = {"global_loss": 0.0, "reconstruction": 0.0, "attention": 0.0, field: 3.0}
        total, metrics = total_loss(
            outputs, scores, 2 * scores, LABELS, LossWeights(**weights, margin=0.1), True
        )
        np.testing.assert_allclose(total, 3 * metrics[name], rtol=1e-6)


def test_softmax_has_neither_margin_nor_scale(outputs, scores):
    _, metrics = total_loss(outputs, scores, None, LABELS, PAPER, True)
    np.testing.assert_array_equal(metrics["global_loss"], softmax_loss(scores, LABELS))
    assert "scale" not in metrics


def test_without_local_head_the_global_loss_is_all(scores):
    nothing = types.SimpleNamespace(conv4=jnp.ones((2, 2, 2, 3)), reconstruction=None)
    total, metrics = total_loss(nothing, scores, None, LABELS, PAPER, True)
    assert set(metrics) == {"loss", "global_loss", "global_accuracy"}
    np.testing.assert_array_equal(total, metrics["global_loss"])


def test_without_autoencoder_nothing_is_reconstructed(outputs, scores):
    outputs.reconstruction = None
    total, metrics = total_loss(outputs, scores, scores, LABELS, PAPER, True)
    assert "reconstruction_loss" not in metrics
    np.testing.assert_allclose(total, metrics["global_loss"] + metrics["attention_loss"])


@pytest.mark.parametrize("stop_target", [True, False])
def test_the_target_has_a_gradient_only_if_asked_for(outputs, scores, stop_target):
    def loss(conv4):
        changed = types.SimpleNamespace(conv4=conv4, reconstruction=outputs.reconstruction)
        return jnp.sum(total_loss(changed, scores, scores, LABELS, PAPER, stop_target)[0])

    assert jax.grad(loss)(outputs.conv4).any() == (not stop_target)
