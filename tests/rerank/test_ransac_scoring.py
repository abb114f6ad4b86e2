import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.rerank.ransac import SCORINGS, score, score_of, squared_error

IDENTITY = np.array([1.0, 0, 0, 1, 0, 0])


def test_errors_by_hand():
    point = jnp.array([10.0, 20.0, 13.0, 24.0])
    assert squared_error(jnp.asarray(IDENTITY), point) == 25.0
    # (y, x) -> (2 x + 1, 3 y - 2) is (41, 28)
    assert squared_error(jnp.array([0.0, 2, 3, 0, 1, -2]), point) == 28**2 + 4**2
    # The same divided by a depth of 1 + 0.1 y = 2
    homography = jnp.array([0.0, 2, 1, 3, 0, -2, 0.1, 0, 1])
    assert squared_error(homography, point) == pytest.approx((20.5 - 13) ** 2 + (14 - 24) ** 2)


def test_behind_the_horizon_is_no_place():
    homography = jnp.array([1.0, 0, 0, 0, 1, 0, -0.1, 0, 1])
    at_horizon, behind = jnp.array([10.0, 0, 0, 0]), jnp.array([20.0, 0, -20.0, 0])
    assert squared_error(homography, at_horizon) == np.inf
    assert squared_error(homography, behind) == np.inf


def test_what_a_match_adds():
    error = jnp.array([0.0, 4.0, 15.9, 16.0, np.inf])
    assert score_of(error, 4.0, "inliers").tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(
        score_of(error, 4.0, "msac"), [1, 0.75, 1 - 15.9 / 16, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize("scoring", SCORINGS)
@pytest.mark.parametrize("count", [[0, 3], [5, 11], [11, 11]])
@pytest.mark.parametrize("block", [1, 4, 11, 32])
def test_scores_equal_a_plain_sum(rng, count, block, scoring):
    models = jnp.asarray(rng.normal(size=(6, 2, 7)), jnp.float32)
    points = rng.normal(size=(2, 11, 4)).astype(np.float32)
    found = score(models, jnp.asarray(points), jnp.array(count), 1.5, scoring, block)
    linear = np.moveaxis(np.asarray(models[:4]), 0, -1).reshape(2, 7, 2, 2).astype(float)
    shift = np.moveaxis(np.asarray(models[4:]), 0, -1)
    moved = np.einsum("mhij,mkj->mhki", linear, points[..., :2]) + shift[:, :, None]
    error = np.square(moved - points[:, None, :, 2:]).sum(-1)
    error[np.broadcast_to(np.arange(11) >= np.array(count)[:, None, None], error.shape)] = np.inf
    gain = error < 1.5**2 if scoring == "inliers" else np.maximum(1 - error / 1.5**2, 0)
    np.testing.assert_allclose(found, gain.sum(axis=2), rtol=1e-4, atol=1e-5)
