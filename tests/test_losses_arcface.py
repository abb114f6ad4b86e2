import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.test_util import check_grads

from delg_jax.losses import add_margin, arcface_loss, softmax_loss


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


def test_margin_by_hand():
    """The true class goes from 60 to 90 degrees; from 170 degrees there is no room for 30."""
    cosines = jnp.asarray([[0.5, 0.3], [0.2, np.cos(np.radians(170))]])
    found = add_margin(cosines, jnp.asarray([0, 1]), np.pi / 6)
    np.testing.assert_allclose(found, [[0, 0.3], [0.2, np.cos(np.radians(170))]], atol=1e-6)


@pytest.mark.parametrize("margin", [0.0, 0.1, 1.0, 3.0])
def test_equals_the_reference(rng, margin):
    cosines = rng.uniform(-0.99, 0.99, (50, 7)).astype(np.float32)
    labels = rng.integers(0, 7, 50)
    cosines[:10, :] = -0.999  # beyond pi - m for most margins
    np.testing.assert_allclose(
        add_margin(cosines, labels, margin), reference_logits(cosines, labels, margin), atol=2e-5
    )
    found = arcface_loss(cosines, labels, jnp.float32(10.0), margin)
    np.testing.assert_allclose(
        found, reference_loss(cosines, labels, 10.0, margin), rtol=1e-4, atol=1e-5
    )


def test_without_margin_it_is_a_scaled_softmax(rng):
    cosines = jnp.asarray(rng.uniform(-1, 1, (5, 4)), jnp.float32)
    labels = jnp.asarray(rng.integers(0, 4, 5))
    found = arcface_loss(cosines, labels, jnp.float32(45.25), 0.0)
    np.testing.assert_allclose(found, softmax_loss(45.25 * cosines, labels), rtol=1e-5, atol=1e-6)


def test_value_and_gradient_are_finite_for_every_cosine():
    """Also for what rounding leaves just outside [-1, 1]."""
    special = [-1 - 1e-7, -1.0, 1.0, 1 + 1e-7, np.nextafter(1, 0), -np.cos(0.1), 0.0]
    true = jnp.asarray(np.concatenate([special, np.linspace(-1, 1, 2001)]), jnp.float32)
    cosines = jnp.stack([true, jnp.zeros_like(true)], axis=1)
    labels = jnp.zeros(len(true), jnp.int32)

    def loss(values, scale):
        return jnp.sum(arcface_loss(values, labels, scale, 0.1))

    assert np.isfinite(arcface_loss(cosines, labels, jnp.float32(45.25), 0.1)).all()
    gradients = jax.grad(loss, argnums=(0, 1))(cosines, jnp.float32(45.25))
    assert all(np.isfinite(gradient).all() for gradient in gradients)
    assert np.abs(gradients[0]).max() < 1e5
    found = add_margin(cosines, labels, 0.1)[:, 0]
    expected = reference_logits(np.clip(cosines, -1, 1), labels, 0.1)[:, 0]
    jump = np.isclose(true, -np.cos(0.1))  # rounding decides on which side of it a cosine lies
    np.testing.assert_allclose(found[~jump], expected[~jump], atol=2e-4)


def test_gradients_away_from_the_ends(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels = jnp.asarray(rng.integers(0, 4, 6))
    check_grads(
        lambda values, scale: arcface_loss(values, labels, scale, 0.1),
        (cosines, 5.0),
        order=1,
        modes=["rev"],
        rtol=1e-2,
    )


def test_only_the_true_class_gets_the_margin(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels = rng.integers(0, 4, 6)
    changed = np.asarray(add_margin(cosines, labels, 0.1)) != cosines
    np.testing.assert_array_equal(changed, np.eye(4, dtype=bool)[labels])


def test_order_of_classes_does_not_matter(rng):
    cosines = rng.uniform(-0.9, 0.9, (6, 4)).astype(np.float32)
    labels, order = rng.integers(0, 4, 6), rng.permutation(4)
    expected = arcface_loss(cosines, labels, jnp.float32(9.0), 0.1)
    found = arcface_loss(cosines[:, order], np.argsort(order)[labels], jnp.float32(9.0), 0.1)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_an_empty_batch_has_no_losses():
    cosines, labels = jnp.zeros((0, 3)), jnp.zeros(0, jnp.int32)
    assert arcface_loss(cosines, labels, jnp.float32(1.0), 0.1).shape == (0,)
