import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.rerank import transforms
from delg_jax.rerank.ransac import squared_error
from delg_jax.rerank.transforms import FAMILIES

TRUE = {
    "affine": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0]]),
    "similarity": np.array([[0.8, -0.5, 12.0], [0.5, 0.8, 7.0]]),
    "homography": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0], [3e-4, -2e-4, 1.0]]),
}
REFLECTED = {name: TRUE[name] * np.array([[-1.0], [1], [1]])[: len(TRUE[name])] for name in TRUE}


def moved(transform, points):
    result = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ transform.T
    return result[..., :2] / result[..., 2:] if len(transform) == 3 else result


def matches(transform, points):
    """Of source and target, [..., 4]."""
    return np.concatenate([points, moved(transform, points)], axis=-1).astype(np.float32)


def whole(model):
    """Matrices [M, 2 or 3, 3] of coefficients [C, M]."""
    zeros = jnp.zeros((model.shape[1], 2))
    return np.asarray(transforms.matrix(model, zeros, zeros))


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_sample_decides_its_transformation(rng, name):
    size = FAMILIES[name].sample
    square = np.array([[-300.0, -300], [300, -280], [310, 300], [-290, 320]])
    points = square[None, :size] + rng.uniform(-90, 90, (50, size, 2))
    sample = jnp.asarray(np.moveaxis(matches(TRUE[name], points), 1, 0))  # [size, 50, 4]
    model, possible = FAMILIES[name].through(jnp.moveaxis(sample, 2, 1)[:, :, None])
    assert possible.all()
    np.testing.assert_allclose(
        whole(model[:, 0]), np.broadcast_to(TRUE[name], (50, *TRUE[name].shape)), 2e-3, 2e-2
    )


@pytest.mark.parametrize("name", ["affine", "homography"])
def test_reflections_are_transformations_too(name):
    points = np.array([[0.0, 0], [100, 0], [90, 110], [-10, 100]])[: FAMILIES[name].sample]
    sample = jnp.asarray(matches(REFLECTED[name], points))[:, :, None, None]
    model, possible = FAMILIES[name].through(sample)
    assert possible.all()
    np.testing.assert_allclose(whole(model[:, 0])[0], REFLECTED[name], rtol=1e-3, atol=1e-2)


LINE, REPEATED = [[0.0, 0], [10, 10], [20, 20]], [[5.0, 5], [5, 5], [90, 3]]


@pytest.mark.parametrize(
    ("name", "points"),
    [
        ("affine", LINE),
        ("affine", REPEATED),
        ("similarity", REPEATED[:2]),
        ("homography", [*LINE, [40.0, 0]]),
        ("homography", [[40.0, 0], *LINE]),
        ("homography", [*REPEATED, [0.0, 80]]),
    ],
)
@pytest.mark.parametrize("side", ["source", "target"])
def test_degenerate_samples_are_told(rng, name, points, side):
    other = rng.uniform(0, 300, (len(points), 2))
    sides = (points, other) if side == "source" else (other, points)
    sample = jnp.asarray(np.concatenate(sides, axis=1), jnp.float32)[:, :, None, None]
    model, possible = FAMILIES[name].through(sample)
    assert not possible.any()
    assert jnp.isfinite(model).all()


def test_a_homography_that_would_tear_the_sample_is_degenerate():
    source = [[0.0, 0], [100, 0], [100, 100], [0, 100]]
    crossed = [source[0], source[2], source[1], source[3]]  # a bow tie
    sample = jnp.asarray(np.concatenate([source, crossed], axis=1), jnp.float32)[:, :, None, None]
    assert not FAMILIES["homography"].through(sample)[1].any()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_refit_ignores_what_has_no_weight(rng, name):
    points = matches(TRUE[name], rng.uniform(-400, 400, (2, 30, 2)))
    points[:, 20:, 2:] = rng.uniform(-400, 400, (2, 10, 2))
    weights = np.zeros((2, 3, 30), np.float32)
    weights[:, 0, :20], weights[:, 1, 5:15], weights[:, 2, 10:20] = 1, 1, 0.5
    model, good = FAMILIES[name].refit(jnp.asarray(points), jnp.asarray(weights))
    assert good.all()
    for fit in range(3):
        np.testing.assert_allclose(
            whole(model[:, :, fit]),
            np.broadcast_to(TRUE[name], (2, *TRUE[name].shape)),
            rtol=2e-3,
            atol=2e-2,
        )


def test_an_affine_refit_is_the_least_squares_solution(rng):
    points = matches(TRUE["affine"], rng.uniform(-400, 400, (1, 40, 2)))
    points[..., 2:] += rng.normal(scale=5.0, size=(1, 40, 2))
    design = np.concatenate([points[0, :, :2], np.ones((40, 1))], axis=1).astype(float)
    expected = np.linalg.lstsq(design, points[0, :, 2:].astype(float))[0].T
    model, _ = FAMILIES["affine"].refit(jnp.asarray(points), jnp.ones((1, 1, 40)))
    np.testing.assert_allclose(whole(model[:, :, 0])[0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["similarity", "homography"])
def test_a_refit_with_noise_is_better_than_what_it_came_from(rng, name):
    points = matches(TRUE[name], rng.uniform(-400, 400, (1, 40, 2)))
    points[..., 2:] += rng.normal(scale=3.0, size=(1, 40, 2))
    model, _ = FAMILIES[name].refit(jnp.asarray(points), jnp.ones((1, 1, 40)))
    mean = float(squared_error(model, jnp.moveaxis(jnp.asarray(points), 2, 0)).mean())
    noise = np.square(points[..., 2:] - moved(TRUE[name], points[..., :2])).sum(-1).mean()
    assert mean < noise


@pytest.mark.parametrize("name", list(FAMILIES))
@pytest.mark.parametrize("case", ["nothing", "one place", "line"])
def test_a_refit_of_too_few_matches_is_flagged(rng, name, case):
    points = matches(TRUE[name], rng.uniform(-400, 400, (1, 10, 2)))
    if case == "one place":
        points[:] = points[:, :1]
    if case == "line":
        points[..., 2:] = points[..., 2:3]
    weights = jnp.full((1, 1, 10), float(case != "nothing"))
    model, good = FAMILIES[name].refit(jnp.asarray(points), weights)
    if name != "similarity" or case != "line":  # two distinct points decide a similarity
        assert not good.any()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_refit_of_fewer_matches_than_a_sample_is_flagged(rng, name):
    size = FAMILIES[name].sample
    points = jnp.asarray(matches(TRUE[name], rng.uniform(-400, 400, (50, 9, 2))))
    for number in (size - 1, size):
        weights = jnp.broadcast_to(jnp.arange(9) < number, (50, 1, 9)).astype(jnp.float32)
        _, good = FAMILIES[name].refit(points, weights)
        assert good.sum() == 0 if number < size else good.mean() > 0.9


def test_the_affine_homography_does_the_same(rng):
    model = jnp.asarray(rng.normal(size=(6, 1)), jnp.float32)
    lifted = whole(transforms.as_homography(model))[0]
    np.testing.assert_allclose(lifted[:2], whole(model)[0], rtol=1e-6)
    assert lifted[2].tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["affine", "homography"])
def test_centres_are_put_back(rng, name):
    points = rng.uniform(0, 500, (1, 40, 2))
    centres = np.array([[300.0, 200.0]]), np.array([[100.0, -50.0]])
    centred = matches(TRUE[name], points) - np.concatenate(centres, axis=1)[:, None]
    model, _ = FAMILIES[name].refit(jnp.asarray(centred, jnp.float32), jnp.ones((1, 1, 40)))
    found = np.asarray(transforms.matrix(model[:, :, 0], *map(jnp.asarray, centres)))[0]
    np.testing.assert_allclose(moved(found, points), moved(TRUE[name], points), atol=0.05)
