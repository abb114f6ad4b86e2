import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.training import step


@pytest.mark.parametrize("shape", [(5,), (2, 3, 4), (1, 7, 2, 3)])
def test_attention_is_summed_up_as_numpy_does(rng, shape):
    scores = rng.gamma(2.0, size=shape).astype(np.float32)
    found = step.attention_summary(jnp.asarray(scores))
    expected = {f"attention_p{q}": np.percentile(scores, q) for q in (25, 50, 75)}
    expected |= {f"attention_{name}": getattr(scores, name)() for name in ("min", "mean", "max")}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert float(found[name]) == pytest.approx(float(value), rel=1e-5), name


def test_sparsity_is_the_share_of_zeros():
    maps = jnp.asarray([[0.0, 1.0], [0.0, 0.0]])
    assert float(step.sparsity(maps)) == 0.75
