import jax
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


# Compiled, because the many small operations cost more one by one
THROUGH = {name: jax.jit(family.through) for name, family in FAMILIES.items()}
REFIT = {name: jax.jit(family.refit) for name, family in FAMILIES.items()}
matrix = jax.jit(transforms.matrix)


def through(name, sample):
    """Models [C, M] and bool [M] of samples [M, size, 4], padded to 50: each shape compiles."""
    padding = ((0, 50 - len(sample)), (0, 0), (0, 0))
    sample = np.moveaxis(np.pad(np.asarray(sample, np.float32), padding), (1, 2), (0, 1))
    model, possible = map(np.asarray, THROUGH[name](sample[:, :, None]))
    return model[:, 0], possible[0]


def refit(name, points, weights):
    """Models [C, M, T] and bool [M, T] of points [M, K, 4], padded to [2, 40] and T = 3."""
    pairs, size = points.shape[:2]
    fits = weights.shape[1]
    points = np.pad(points, ((0, 2 - pairs), (0, 40 - size), (0, 0))).astype(np.float32)
    weights = np.pad(weights, ((0, 2 - pairs), (0, 3 - fits), (0, 40 - size))).astype(np.float32)
    model, good = map(np.asarray, REFIT[name](points, weights))
    return model[:, :pairs, :fits], good[:pairs, :fits]


def whole(model):
    """Matrices [M, 2 or 3, 3] of coefficients [C, M]."""
    count = model.shape[1]
    zeros = np.zeros((50, 2), np.float32)
    return np.asarray(matrix(np.pad(model, ((0, 0), (0, 50 - count))), zeros, zeros))[:count]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_sample_decides_its_transformation(rng, name):
    size = FAMILIES[name].sample
    square = np.array([[-300.0, -300], [300, -280], [310, 300], [-290, 320]])
    points = square[None, :size] + rng.uniform(-90, 90, (50, size, 2))
    model, possible = through(name, matches(TRUE[name], points))
    assert possible.shape == (50,)
    assert possible.all()
    np.testing.assert_allclose(
        whole(model), np.broadcast_to(TRUE[name], (50, *TRUE[name].shape)), 2e-3, 2e-2
    )


@pytest.mark.parametrize("name", ["affine", "homography"])
def test_reflections_are_transformations_too(name):
    points = np.array([[0.0, 0], [100, 0], [90, 110], [-10, 100]])[: FAMILIES[name].sample]
    model, possible = through(name, matches(REFLECTED[name], points)[None])
    assert possible[0]
    np.testing.assert_allclose(whole(model)[0], REFLECTED[name], rtol=1e-3, atol=1e-2)


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
    model, possible = through(name, np.concatenate(sides, axis=1)[None])
    assert not possible[0]
    assert np.isfinite(model).all()


def test_a_homography_that_would_tear_the_sample_is_degenerate():
    source = [[0.0, 0], [100, 0], [100, 100], [0, 100]]
    crossed = [source[0], source[2], source[1], source[3]]  # a bow tie
    assert not through("homography", np.concatenate([source, crossed], axis=1)[None])[1][0]


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_refit_ignores_what_has_no_weight(rng, name):
    points = matches(TRUE[name], rng.uniform(-400, 400, (2, 30, 2)))
    points[:, 20:, 2:] = rng.uniform(-400, 400, (2, 10, 2))
    weights = np.zeros((2, 3, 30), np.float32)
    weights[:, 0, :20], weights[:, 1, 5:15], weights[:, 2, 10:20] = 1, 1, 0.5
    model, good = refit(name, points, weights)
    assert good.shape == (2, 3)
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
    model, _ = refit("affine", points, np.ones((1, 1, 40)))
    np.testing.assert_allclose(whole(model[:, :, 0])[0], expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("name", ["similarity", "homography"])
def test_a_refit_with_noise_is_better_than_what_it_came_from(rng, name):
    points = matches(TRUE[name], rng.uniform(-400, 400, (1, 40, 2)))
    points[..., 2:] += rng.normal(scale=3.0, size=(1, 40, 2))
    model, _ = refit(name, points, np.ones((1, 1, 40)))
    mean = float(np.mean(squared_error(model[:, :, 0, None], np.moveaxis(points, 2, 0))))
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
    _, good = refit(name, points, np.full((1, 1, 10), float(case != "nothing")))
    if name != "similarity" or case != "line":  # two distinct points decide a similarity
        assert not good.any()


@pytest.mark.parametrize("name", list(FAMILIES))
def test_a_refit_of_fewer_matches_than_a_sample_is_flagged(rng, name):
    size = FAMILIES[name].sample
    weights = np.broadcast_to(np.arange(9) < np.array([size - 1, size])[:, None], (2, 2, 9))
    good = [
        refit(name, matches(TRUE[name], rng.uniform(-400, 400, (2, 9, 2))), weights)[1]
        for _ in range(25)
    ]
    few, enough = np.moveaxis(good, 2, 0)
    assert not few.any()
    assert enough.mean() > 0.9


def test_the_affine_homography_does_the_same(rng):
    model = rng.normal(size=(6, 1)).astype(np.float32)
    lifted = whole(np.asarray(transforms.as_homography(model)))[0]
    np.testing.assert_allclose(lifted[:2], whole(model)[0], rtol=1e-6)
    assert lifted[2].tolist() == [0, 0, 1]


@pytest.mark.parametrize("name", ["affine", "homography"])
def test_centres_are_put_back(rng, name):
    points = rng.uniform(0, 500, (1, 40, 2))
    centres = np.array([[300.0, 200.0]]), np.array([[100.0, -50.0]])
    centred = matches(TRUE[name], points) - np.concatenate(centres, axis=1)[:, None]
    model, _ = refit(name, centred, np.ones((1, 1, 40)))
    found = np.asarray(matrix(model[:, :, 0], *(np.float32(centre) for centre in centres)))[0]
    np.testing.assert_allclose(moved(found, points), moved(TRUE[name], points), atol=0.05)
