import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.features import pyramid_level


class Layers(nn.Module):
    """Convolutions of which some are 1x1."""

    @nn.compact
    def __call__(self, x):
        x = nn.Conv(4, (3, 3), name="square")(x)
        x = nn.Conv(6, (1, 1), (2, 2), padding="VALID", use_bias=False, name="strided")(x)
        x = nn.Conv(5, (1, 1), dtype=self.dtype, name="biased")(x)
        return nn.Dense(2)(x)

    dtype: jnp.dtype = jnp.float32


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("shape", [(1, 7, 6, 3), (3, 1, 5, 3)])
def test_changes_no_result(rng, shape, dtype):
    module, x = Layers(dtype=jnp.dtype(dtype)), rng.normal(size=shape).astype(np.float32)
    variables = module.init(jax.random.key(0), x)
    variables["params"]["biased"]["bias"] = rng.normal(size=5).astype(np.float32)
    expected = module.apply(variables, x)
    with pyramid_level.conv1x1_as_matmul():
        found = module.apply(variables, x)
    assert found.dtype == expected.dtype
    np.testing.assert_allclose(found, expected, atol=1e-5 if dtype == "float32" else 0.05)


def test_only_convolutions_of_1x1_are_products():
    x = jnp.zeros((1, 8, 8, 3))
    variables = Layers().init(jax.random.key(0), x)

    def run(x):
        with pyramid_level.conv1x1_as_matmul():
            return Layers().apply(variables, x)

    text = str(jax.make_jaxpr(run)(x))
    assert text.count("conv_general_dilated[") == 1
    assert text.count("dot_general[") == 3
    assert str(jax.make_jaxpr(lambda x: Layers().apply(variables, x))(x)).count("conv_gen") > 2
