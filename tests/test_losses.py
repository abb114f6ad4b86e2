import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from delg_jax import losses
from delg_jax.losses import LossWeights
from delg_jax.models.delg import DelgOutputs

PAPER = LossWeights(global_loss=1.0, reconstruction=10.0, attention=1.0, margin=0.1)
LABELS = np.array([0, 2], np.int32)

# Compiled as a whole, as in a step of training
add_margin = jax.jit(losses.add_margin)
arcface_loss = jax.jit(losses.arcface_loss)
is_correct = jax.jit(losses.is_correct)
reconstruction_loss = jax.jit(losses.reconstruction_loss)
softmax_loss = jax.jit(losses.softmax_loss)
total_loss = jax.jit(losses.total_loss, static_argnums=(2, 3))


@jax.jit
@functools.partial(jax.grad, argnums=(0, 1))
def arcface_gradients(cosines, scale, labels):
    return jnp.sum(losses.arcface_loss(cosines, labels, scale, 0.1))


def reference_logits(cosines, labels, margin):
    """By angles, in float64; past pi the margin is left out."""
    angles = np.arccos(cosines.astype(float))
    for row, label in zip(angles, labels, strict=True):
        if row[label] <= np.pi - margin:
            row[label] += margin
    return np.cos(angles)


def reference_loss(cosines, labels, scale, margin):
    logits = scale * reference_logits(cosines, labels, margin)
    return np.log(np.exp(logits).sum(1)) - logits[np.arange(len(labels)), labels]


def test_arcface_margin_by_hand():
    """The true class goes from 60 to 90 degrees; from 170 degrees adding 30 would pass 180."""
    cosines = np.float32([[0.5, 0.3], [0.2, np.cos(np.radians(170))]])
    found = add_margin(cosines, np.array([0, 1]), np.pi / 6)
    np.testing.assert_allclose(found, [[0, 0.3], [0.2, np.cos(np.radians(170))]], atol=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0, 3.0])
def test_arcface_equals_the_reference(rng, margin):
    cosines = rng.uniform(-0.99, 0.99, (50, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 50)
    cosines[:10, :] = -0.999  # beyond pi - m for most margins
    np.testing.assert_allclose(
        add_margin(cosines, labels, margin), reference_logits(cosines, labels, margin), atol=2e-5
    )
    found = arcface_loss(cosines, labels, np.float32(10.0), margin)
    np.testing.assert_allclose(
        found, reference_loss(cosines, labels, 10.0, margin), rtol=1e-4, atol=1e-5
    )


def test_arcface_without_margin_is_a_scaled_softmax(rng):
    cosines = rng.uniform(-1, 1, (5, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 5)
    found = arcface_loss(cosines, labels, np.float32(45.25), 0.0)
    np.testing.assert_allclose(
        found, softmax_loss(np.float32(45.25) * cosines, labels), rtol=1e-5, atol=5e-6
    )


def test_arcface_value_and_gradient_are_finite_for_every_cosine():
    """Also for what rounding leaves just outside [-1, 1]."""
    special = [-1 - 1e-7, -1.0, 1.0, 1 + 1e-7, np.nextafter(1, 0), -np.cos(0.1), 0.0]
    true = np.concatenate([special, np.linspace(-1, 1, 2001)]).astype(np.float32)
    cosines = np.stack([true, np.zeros_like(true)], axis=1)
    labels = np.zeros(len(true), np.int32)
    assert np.isfinite(arcface_loss(cosines, labels, np.float32(45.25), 0.1)).all()
    gradients = arcface_gradients(cosines, np.float32(45.25), labels)
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.abs(gradients[0]).max() < 1e5
    found = np.asarray(add_margin(cosines, labels, 0.1))[:, 0]
    expected = reference_logits(np.clip(cosines, -1, 1), labels, 0.1)[:, 0]
    jump = np.isclose(true, -np.cos(0.1))  # rounding decides on which side of it a cosine lies
    np.testing.assert_allclose(found[~jump], expected[~jump], atol=2e-4)


def test_arcface_gradients(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 6)
    check_grads(
        lambda values, scale: arcface_loss(values, labels, scale, 0.1),
        (cosines, 5.0),
        order=1,
        modes=["rev"],
        rtol=1e-2,
    )


def test_only_the_true_class_gets_the_arcface_margin(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 6)
    changed = np.asarray(add_margin(cosines, labels, 0.1)) != cosines
    np.testing.assert_array_equal(changed, np.eye(4, dtype=bool)[labels])


def test_arcface_does_not_depend_on_the_order_of_classes(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels, order = rng.integers(0, 4, 6), rng.permutation(4)
    expected = arcface_loss(cosines, labels, np.float32(9.0), 0.1)
    found = arcface_loss(cosines[:, order], np.argsort(order)[labels], np.float32(9.0), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_arcface_of_an_empty_batch_is_empty():
    cosines, labels = np.zeros((0, 3), np.float32), np.zeros(0, np.int32)
    assert arcface_loss(cosines, labels, np.float32(1.0), 0.1).shape == (0,)


def test_cross_entropy_by_hand():
    logits = np.log(np.float32([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]))
    expected = -np.log([5 / 8, 3 / 8])
    np.testing.assert_allclose(softmax_loss(logits, np.array([2, 1])), expected, rtol=1e-5)


def test_cross_entropy_of_large_logits_is_finite():
    logits = np.float32([[1e4, 0.0], [0.0, 1e4]])
    np.testing.assert_allclose(softmax_loss(logits, np.array([0, 0])), [0.0, 1e4], atol=1e-6)


def test_cross_entropy_gradients(rng):
    logits, labels = rng.normal(size=(4, 3)).astype(np.float32), np.array([0, 2, 1, 1])
    check_grads(lambda x: softmax_loss(x, labels), (logits,), 1, ["rev"], rtol=1e-2)


def test_the_highest_score_decides_and_ties_go_to_the_lower_class():
    scores = np.float32([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    assert is_correct(scores, np.array([1, 1, 0, 1])).tolist() == [True, False, True, False]


def test_reconstruction_loss_by_hand():
    """Errors 1, 2, 0, 1 in the first image, none in the second."""
    target = np.zeros((2, 1, 2, 2), np.float32)
    restored = np.float32([[[[1, -2], [0, 1]]], [[[0, 0], [0, 0]]]])
    np.testing.assert_allclose(reconstruction_loss(restored, target), [6 / 4, 0.0])


def test_reconstruction_loss_equals_the_reference_and_is_float32(rng):
    restored, target = rng.normal(size=(2, 3, 5, 4, 7)).astype(np.float32)
    expected = ((restored.astype(float) - target) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(reconstruction_loss(restored, target), expected, rtol=1e-5)
    rough = reconstruction_loss(restored.astype(jnp.bfloat16), target.astype(jnp.bfloat16))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, expected, rtol=1e-2)


def test_reconstruction_loss_has_a_gradient_for_both_arguments(rng):
    restored, target = rng.normal(size=(2, 2, 2, 3, 4)).astype(np.float32)
    check_grads(reconstruction_loss, (restored, target), 1, ["rev"], rtol=1e-2)
    gradient = jax.jit(jax.grad(lambda t: jnp.sum(reconstruction_loss(restored, t))))(target)
    assert np.any(gradient)


@pytest.fixture
def outputs(rng):
    """What the loss reads of a network's outputs."""
    conv4, restored = rng.normal(size=(2, 2, 3, 4, 5)).astype(np.float32)
    return DelgOutputs(conv4, conv4, reconstruction=restored)


@pytest.fixture
def scores(rng):
    return rng.uniform(-1, 1, (2, 3)).astype(np.float32)


def test_total_of_the_paper(rng, outputs, scores):
    logits, scale = rng.normal(size=(2, 3)).astype(np.float32), np.float32(30.0)
    outputs = outputs.replace(global_logits=scores, scale=scale, local_logits=logits)
    total, metrics = total_loss(outputs, LABELS, PAPER, True)
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
    parts = [
        np.asarray(expected[f"{name}_loss"]) for name in ("global", "reconstruction", "attention")
    ]
    np.testing.assert_allclose(total, parts[0] + 10 * parts[1] + parts[2], rtol=1e-5)


def test_each_weight_belongs_to_its_loss(outputs, scores):
    both = outputs.replace(global_logits=scores, local_logits=2 * scores)
    for field, name in (
        ("global_loss", "global_loss"),
        ("reconstruction", "reconstruction_loss"),
        ("attention", "attention_loss"),
    ):
        weights = {"global_loss": 0.0, "reconstruction": 0.0, "attention": 0.0, field: 3.0}
        total, metrics = total_loss(both, LABELS, LossWeights(**weights, margin=0.1), True)
        np.testing.assert_allclose(total, 3 * np.asarray(metrics[name]), rtol=1e-6)


def test_softmax_has_neither_margin_nor_scale(outputs, scores):
    _, metrics = total_loss(outputs.replace(global_logits=scores), LABELS, PAPER, True)
    np.testing.assert_array_equal(metrics["global_loss"], softmax_loss(scores, LABELS))
    assert "scale" not in metrics


def test_without_local_head_the_global_loss_is_all(scores):
    maps = np.ones((2, 2, 2, 3), np.float32)
    nothing = DelgOutputs(maps, maps, global_logits=scores)
    total, metrics = total_loss(nothing, LABELS, PAPER, True)
    assert set(metrics) == {"loss", "global_loss", "global_accuracy"}
    np.testing.assert_array_equal(total, metrics["global_loss"])


def test_without_autoencoder_nothing_is_reconstructed(outputs, scores):
    outputs = outputs.replace(reconstruction=None, global_logits=scores, local_logits=scores)
    total, metrics = total_loss(outputs, LABELS, PAPER, True)
    assert "reconstruction_loss" not in metrics
    parts = np.asarray(metrics["global_loss"]), np.asarray(metrics["attention_loss"])
    np.testing.assert_allclose(total, sum(parts))


@pytest.mark.parametrize("stop_target", [True, False])
def test_the_target_has_a_gradient_only_if_asked_for(outputs, scores, stop_target):
    def loss(conv4):
        changed = outputs.replace(conv4=conv4, global_logits=scores, local_logits=scores)
        return jnp.sum(total_loss(changed, LABELS, PAPER, stop_target)[0])

    assert np.any(jax.jit(jax.grad(loss))(outputs.conv4)) == (not stop_target)


@pytest.mark.parametrize("planted", ["global_loss", "attention", "reconstruction"])
def test_what_has_no_weight_does_not_reach_the_total(outputs, scores, planted):
    """Not even a NaN, which a weight of 0 would not remove."""
    good = {"global_logits": scores, "local_logits": scores}
    bad = {
        "global_loss": {"global_logits": np.float32(np.nan) * scores},
        "attention": {"local_logits": np.float32(np.nan) * scores},
        "reconstruction": {"reconstruction": np.float32(np.nan) * outputs.conv4},
    }[planted]
    weights = {"global_loss": 1.0, "reconstruction": 1.0, "attention": 1.0}
    for weight, finite in ((0.0, True), (1.0, False)):
        used = LossWeights(**{**weights, planted: weight}, margin=0.1)
        total, _ = total_loss(outputs.replace(**{**good, **bad}), LABELS, used, True)
        assert np.isfinite(total).all() == finite


@pytest.mark.parametrize(
    ("weights", "which"),
    [
        ((1, 10, 1), "joint"),
        ((1, 0, 1), "joint"),
        ((1, 10, 0), "joint"),
        ((1, 0, 0), "global"),
        ((0, 10, 1), "local"),
    ],
)
def test_a_head_without_a_loss_is_not_computed(weights, which):
    assert LossWeights(*weights, margin=0.1).which == which
