import jax.numpy as jnp
import numpy as np
from jax.test_util import check_grads

from delg_jax.losses import is_correct, softmax_loss


def test_cross_entropy_by_hand():
    logits = jnp.log(jnp.asarray([[1.0, 2.0, 5.0], [3.0, 3.0, 2.0]]))
    expected = -np.log([5 / 8, 3 / 8])
    np.testing.assert_allclose(softmax_loss(logits, jnp.asarray([2, 1])), expected, rtol=1e-5)


def test_large_logits_stay_finite():
    logits = jnp.asarray([[1e4, 0.0], [0.0, 1e4]])
    np.testing.assert_allclose(softmax_loss(logits, jnp.asarray([0, 0])), [0.0, 1e4], atol=1e-6)


def test_gradients(rng):
    logits, labels = rng.normal(size=(4, 3)).astype(np.float32), jnp.asarray([0, 2, 1, 1])
    check_grads(lambda x: softmax_loss(x, labels), (logits,), 1, ["rev"], rtol=1e-2)


def test_the_highest_score_decides_and_ties_go_to_the_lower_class():
    scores = jnp.asarray([[0.1, 0.9], [0.9, 0.1], [0.5, 0.5], [0.5, 0.5]])
    assert is_correct(scores, jnp.asarray([1, 1, 0, 1])).tolist() == [True, False, True, False]
