import jax.numpy as jnp
import numpy as np

from delg_jax.rerank.ransac import guided_models, squared_error


def test_each_match_makes_a_view_through_itself(rng):
    points = rng.uniform(-300, 300, (2, 6, 4)).astype(np.float32)
    ratios = rng.uniform(0.5, 2.0, (2, 6)).astype(np.float32)
    models, possible = guided_models(jnp.asarray(points), jnp.asarray(ratios), jnp.array([6, 4]), 5)
    assert models.shape == (6, 2, 5)
    assert possible.tolist() == [[True] * 5, [True] * 4 + [False]]
    np.testing.assert_allclose(
        squared_error(models, jnp.moveaxis(jnp.asarray(points[:, :5]), 2, 0)), 0, atol=1e-4
    )
    np.testing.assert_array_equal(models[0, 0], ratios[0, :5])
    np.testing.assert_array_equal(models[3, 0], ratios[0, :5])
    assert (np.asarray(models[1:3]) == 0).all()


def test_an_unknown_size_makes_none():
    ratios = jnp.array([[0.0, np.inf, np.nan, 1.0]])
    models, possible = guided_models(jnp.ones((1, 4, 4)), ratios, jnp.array([4]), 9)
    assert possible.tolist() == [[False, False, False, True]]
    assert jnp.isfinite(models).all()
