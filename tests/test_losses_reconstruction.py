import jax
import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from delg_jax.losses import reconstruction_loss


def test_by_hand():
    """Errors 1, 2, 0, 1 in the first image, none in the second."""
    target = jnp.zeros((2, 1, 2, 2))
    restored = target.at[0].set(jnp.asarray([[[1.0, -2.0], [0.0, 1.0]]]))
    np.testing.assert_allclose(reconstruction_loss(restored, target), [6 / 4, 0.0])


def test_equals_the_reference_and_is_float32(rng):
    restored, target = rng.normal(size=(2, 3, 5, 4, 7)).astype(np.float32)
    expected = ((restored.astype(float) - target) ** 2).reshape(3, -1).mean(1)
    np.testing.assert_allclose(reconstruction_loss(restored, target), expected, rtol=1e-5)
    rough = reconstruction_loss(restored.astype(jnp.bfloat16), target.astype(jnp.bfloat16))
    assert rough.dtype == jnp.float32
    np.testing.assert_allclose(rough, expected, rtol=1e-2)


def test_gradients_reach_both_arguments(rng):
    restored, target = rng.normal(size=(2, 2, 2, 3, 4)).astype(np.float32)
    check_grads(reconstruction_loss, (restored, target), 1, ["rev"], rtol=1e-2)
    gradient = jax.grad(lambda t: jnp.sum(reconstruction_loss(restored, t)))(target)
    assert gradient.any()
