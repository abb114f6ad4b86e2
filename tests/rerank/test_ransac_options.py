"""Models, scorings, local optimisation and guided hypotheses of RANSAC; the rest in test_ransac."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delg_jax.rerank.ransac import RansacSettings, estimate

KEY = jax.random.key(1)
VIEWS = {
    "affine": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0]]),
    "similarity": np.array([[0.8, -0.5, 12.0], [0.5, 0.8, 7.0]]),
    "homography": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0], [3e-4, -2e-4, 1.0]]),
}
MODELS = list(VIEWS)


def moved(view, points):
    result = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ view.T
    return result[..., :2] / result[..., 2:] if len(view) == 3 else result


def planted(rng, view, pairs=3, inliers=40, matches=80, noise=2.0, size=90):
    """Matches of one view, the first `inliers` of `matches` of them true, and padding."""
    source = rng.uniform(0, 600, (pairs, size, 2))
    target = moved(view, source) + rng.uniform(-noise, noise, source.shape)
    target[:, inliers:] += rng.choice([-1, 1], (pairs, size - inliers, 2)) * rng.uniform(
        100, 300, (pairs, size - inliers, 2)
    )
    mask = np.broadcast_to(np.arange(size) < matches, (pairs, size))
    return jnp.asarray(source, jnp.float32), jnp.asarray(target, jnp.float32), jnp.asarray(mask)


def run(matches, ratios=None, ids=None, block=8, **options):
    ids = jnp.arange(len(matches[0])) if ids is None else ids
    result = estimate(
        *matches, ids, KEY, RansacSettings(**{"hypotheses": 300, **options}), ratios, block
    )
    return jax.tree.map(np.asarray, result)


@pytest.mark.parametrize(("scoring", "optimized"), [("inliers", False), ("msac", True)])
@pytest.mark.parametrize("model", MODELS)
def test_every_model_finds_its_planted_view(rng, model, scoring, optimized):
    matches = planted(rng, VIEWS[model])
    result = run(
        matches, model=model, scoring=scoring, local_optimization=optimized, inlier_threshold=12.0
    )
    assert result.inlier_mask[:, :40].mean() >= 0.99
    assert not result.inlier_mask[:, 40:].any()
    places = rng.uniform(100, 500, (20, 2))
    for transform in result.transform:
        np.testing.assert_allclose(moved(transform, places), moved(VIEWS[model], places), atol=15.0)


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_local_optimisation_never_finds_fewer(rng, model):
    matches = planted(rng, VIEWS[model], pairs=8, noise=6.0)
    options = {"model": model, "inlier_threshold": 8.0, "hypotheses": 40}
    plain = run(matches, **options).inliers
    optimized = run(matches, local_optimization=True, **options).inliers
    assert (optimized >= plain).all()
    assert optimized.sum() > plain.sum()


def test_msac_prefers_the_closer_fit(rng):
    matches = planted(rng, VIEWS["affine"], pairs=10, noise=1.0)
    places = rng.uniform(100, 500, (20, 2))
    errors = {}
    for scoring in ("inliers", "msac"):
        found = run(matches, scoring=scoring).transform
        offsets = [moved(view, places) - moved(VIEWS["affine"], places) for view in found]
        errors[scoring] = np.linalg.norm(offsets, axis=-1).mean()
    assert errors["msac"] < 0.7 * errors["inliers"]


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_guided_hypotheses_are_few_and_find_upright_views(rng, model):
    view = np.array([[1.5, 0.05, 20.0], [-0.04, 1.4, 5.0], [1e-5, -1e-5, 1.0]])
    view = view if model == "homography" else view[:2]
    matches = planted(rng, view, inliers=8)  # one in ten: an affine sample is good once in 1000
    ratios = jnp.full((3, 90), 1.45)
    options = {"model": model, "hypotheses": 80, "inlier_threshold": 10.0}
    found = run(matches, ratios, guided=True, **options)
    assert (found.inlier_mask[:, :8].sum(axis=1) == 8).all()
    assert run(matches, **options).inliers.sum() < found.inliers.sum()


def test_guided_hypotheses_need_the_sizes(rng):
    with pytest.raises(ValueError, match="`scale_ratios`"):
        run(planted(rng, VIEWS["affine"]), guided=True)


CASES = [("similarity", False), ("affine", False), ("homography", True)]


@pytest.mark.parametrize(("model", "guided"), CASES)
def test_a_pair_does_not_depend_on_company_padding_or_chunks(rng, model, guided):
    matches = planted(rng, VIEWS[model], noise=6.0)
    ratios = jnp.asarray(rng.uniform(0.8, 1.2, (3, 90)), jnp.float32)
    options = {"model": model, "local_optimization": True, "guided": guided, "hypotheses": 30}
    together = run(matches, ratios, **options)
    alone = [part[1:2, :80] for part in (*matches, ratios)]
    alone = run(alone[:3], alone[3], jnp.array([1]), block=3, **options)
    np.testing.assert_array_equal(alone.inlier_mask[0], together.inlier_mask[1, :80])
    np.testing.assert_allclose(alone.transform[0], together.transform[1], rtol=1e-3, atol=1e-2)


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_one_device_and_eight_give_the_same(rng, model):
    matches = planted(rng, VIEWS[model], pairs=8, noise=6.0)
    options = {"inlier_threshold": 8.0, "hypotheses": 40}  # compiled by the test above
    options |= {"model": model, "local_optimization": True}
    expected = run(matches, **options)
    mesh = Mesh(np.array(jax.devices()), ("pairs",))
    assert mesh.size == 8
    sharded = jax.device_put(matches, NamedSharding(mesh, PartitionSpec("pairs")))
    found = run(sharded, **options)
    np.testing.assert_array_equal(found.inlier_mask, expected.inlier_mask)


DEGENERATE = {
    "source on a line": lambda s, t: (s * jnp.array([[[1.0, 0.0]]]), t),
    "target on a line": lambda s, t: (s, t[..., :1] * jnp.array([[[1.0, 2.0]]])),
    "one source point": lambda s, t: (jnp.full_like(s, 7), t),
    "one target point": lambda s, t: (s, jnp.full_like(t, 7)),
}


@pytest.mark.parametrize("case", list(DEGENERATE))
@pytest.mark.parametrize("model", MODELS)
def test_degenerate_matches_verify_nothing(rng, model, case):
    source, target, mask = planted(rng, VIEWS[model], inliers=90)
    source, target = DEGENERATE[case](source, target)
    result = run((source, target, mask), model=model, local_optimization=True, inlier_threshold=3.0)
    assert np.isfinite(result.transform).all()
    if model == "similarity" and "line" in case:
        assert result.inliers.max() < 20  # two points decide one, but no line fits a plane
    else:
        assert result.inliers.tolist() == [0, 0, 0]
        assert (result.transform == 0).all()


@pytest.mark.parametrize(("model", "least"), [("similarity", 3), ("affine", 4), ("homography", 5)])
def test_a_sample_alone_verifies_nothing(rng, model, least):
    source, target, _ = planted(rng, VIEWS[model], inliers=90, noise=0.0)
    for number in (0, 1, least - 1, least):
        mask = jnp.broadcast_to(jnp.arange(90) < number, (3, 90))
        options = {
            "local_optimization": True,
            "inlier_threshold": 3.0,
        }  # compiled by the test above
        inliers = run((source, target, mask), model=model, **options).inliers
        assert inliers.tolist() == [number if number == least else 0] * 3


@pytest.mark.parametrize(
    "wrong",
    [{"hypotheses": 0}, {"inlier_threshold": 0.0}, {"model": "spline"}, {"scoring": "median"}],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        RansacSettings(**wrong)
