import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.models.heads import KINDS, DimReduction


def test_autoencoder_is_two_layers_with_relu_after_the_second(rng, random_variables):
    maps = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    module = DimReduction("ae", 3)
    variables = random_variables(module, maps)
    codes, restored = module.apply(variables, maps)
    encoder, decoder = variables["params"]["encoder"], variables["params"]["decoder"]
    expected = maps @ encoder["kernel"][0, 0] + encoder["bias"]
    np.testing.assert_allclose(codes, expected, rtol=1e-4, atol=1e-5)
    expected = np.maximum(expected @ decoder["kernel"][0, 0] + decoder["bias"], 0)
    np.testing.assert_allclose(restored, expected, rtol=1e-4, atol=1e-5)
    assert (codes < 0).any()  # the code is linear


def test_one_layer_has_no_reconstruction(rng, random_variables):
    maps = rng.normal(size=(2, 3, 4, 6)).astype(np.float32)
    module = DimReduction("fc", 3)
    variables = random_variables(module, maps)
    codes, restored = module.apply(variables, maps)
    assert set(variables["params"]) == {"encoder"}
    assert codes.shape == (2, 3, 4, 3)
    assert restored is None


def test_none_leaves_conv4_as_it_is(rng):
    maps = jnp.asarray(rng.normal(size=(2, 3, 4, 6)))
    codes, restored = DimReduction("none", 3).apply({}, maps)
    assert codes is maps
    assert restored is None


@pytest.mark.parametrize("kind", KINDS)
def test_positions_do_not_see_each_other(rng, random_variables, kind):
    maps = rng.normal(size=(1, 3, 3, 4)).astype(np.float32)
    module = DimReduction(kind, 2)
    variables = random_variables(module, maps)
    gradient = jax.grad(lambda m: jnp.sum(module.apply(variables, m)[0][0, 1, 1]))(maps)
    assert np.argwhere(gradient.any(axis=-1)).tolist() == [[0, 1, 1]]
