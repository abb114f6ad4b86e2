from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from delg_jax.rerank import ransac
from delg_jax.rerank.ransac import (
    Estimate,
    RansacSettings,
    estimate,
    guided_models,
    score,
)

# Tests share shapes and options, because each combination compiles for seconds
KEY = jax.random.key(3)
PLANTED = np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0]])
PAIRS, MATCHES, HYPOTHESES = 8, 90, 300


# Compiled as a whole, as in `estimate`: each single operation would be a program of its own
score_of = jax.jit(ransac.score_of, static_argnames=("inlier_threshold", "scoring"))
squared_error = jax.jit(ransac.squared_error)


@jax.jit
def ranks_of_sizes(count):
    """8000 samples of 2, 3 and 4 matches."""
    return [ransac.distinct_ranks(KEY, count, size, 8000) for size in (2, 3, 4)]


@jax.jit
def draws(pair_id, count):
    """The samples of a pair, and all that replace degenerate ones."""
    key = jax.random.fold_in(KEY, pair_id)
    keys = [key, *(jax.random.fold_in(key, attempt) for attempt in range(ransac.REDRAWS))]
    return jax.lax.map(
        lambda key: ransac.distinct_ranks(key, count, 3, HYPOTHESES), jnp.stack(keys)
    )


def planted(rng, matches=60, outliers=30, noise=0.8, size=80):
    """Matches of a known affine view with noise, outliers far from it, and padding."""
    source = rng.uniform(0, 800, (size, 2))
    target = source @ PLANTED[:, :2].T + PLANTED[:, 2]
    target[:matches] += rng.uniform(-noise, noise, (matches, 2))
    is_inlier = np.arange(size) < matches - outliers
    target[matches - outliers : matches] += rng.choice([-1, 1], (outliers, 2)) * rng.uniform(
        100, 400, (outliers, 2)
    )
    mask = np.arange(size) < matches
    return source.astype(np.float32), target.astype(np.float32), mask, is_inlier


def padded(source, target, size=80):
    """Matches with padding and their mask."""
    rest = ((0, size - len(source)), (0, 0))
    return np.pad(source, rest), np.pad(target, rest), np.arange(size) < len(source)


def one(source, target, mask, pair_id=0, **options):
    """The estimate of one pair; all others of the block are without matches."""
    rest = ((0, PAIRS - 1), (0, MATCHES - len(mask)))
    points = [np.pad(side[None], (*rest, (0, 0))) for side in (source, target)]
    result = run((*points, np.pad(mask[None], rest)), ids=[pair_id] * PAIRS, key=KEY, **options)
    return Estimate(result.transform[0], result.inliers[0], result.inlier_mask[0, : len(mask)])


def reference(source, target, mask, pair_id, inlier_threshold):
    """RANSAC one hypothesis at a time in double precision, on the draws of the kernel."""
    valid = np.flatnonzero(mask)
    drawn = [valid[ranks.T] for ranks in np.asarray(draws(pair_id, len(valid)))]
    best, best_inliers = None, np.zeros(len(mask), bool)
    for candidates in zip(*drawn, strict=True):
        good = [c for c in candidates if not (_flat(source[c]) or _flat(target[c]))]
        if not good:
            continue
        corners = np.concatenate([source[good[0]], np.ones((3, 1))], axis=1).astype(float)
        transform = np.linalg.solve(corners, target[good[0]].astype(float)).T
        fitted = source @ transform[:, :2].T + transform[:, 2]
        inliers = mask & (np.linalg.norm(fitted - target, axis=1) < inlier_threshold)
        if best is None or inliers.sum() > best_inliers.sum():
            best, best_inliers = transform, inliers
    return best, best_inliers


def _flat(corners):
    sides = (corners[[1, 2, 0]] - corners).astype(float)
    height = abs(sides[0, 0] * sides[1, 1] - sides[0, 1] * sides[1, 0])
    return height <= 1e-3 * np.square(sides).sum(axis=1).max()


@pytest.mark.parametrize("noise", [0.0, 0.8])
def test_finds_the_planted_view(rng, noise):
    source, target, mask, is_inlier = planted(rng, noise=noise)
    result = one(source, target, mask)
    assert result.inlier_mask[is_inlier].mean() >= 0.99
    assert not result.inlier_mask[~is_inlier].any()
    assert result.inliers == result.inlier_mask.sum()
    if noise == 0:
        np.testing.assert_allclose(result.transform, PLANTED, atol=1e-3, rtol=1e-3)


def test_recall_of_planted_inliers_over_many_pairs(rng):
    recalls = []
    for name in range(20):
        *pair, is_inlier = planted(rng, matches=80, outliers=48)
        recalls.append(one(*pair, pair_id=name).inlier_mask[is_inlier].mean())
    assert np.mean(recalls) >= 0.99


@pytest.mark.parametrize("matches", [4, 17, 40])
@pytest.mark.parametrize("grid", [1, 200])  # many samples of a coarse grid lie on a line
def test_equals_the_reference_on_the_same_draws(rng, matches, grid):
    source, target, mask, _ = planted(rng, matches, matches // 2)
    source, mask = np.round(source / grid) * np.float32(grid), rng.permutation(mask)
    transform, inlier_mask = reference(source, target, mask, 5, 8.0)
    result = one(source, target, mask, pair_id=5)
    np.testing.assert_array_equal(result.inlier_mask, inlier_mask)
    np.testing.assert_allclose(result.transform, transform, rtol=2e-3, atol=5e-2)


def test_degenerate_samples_cost_no_hypothesis(rng):
    # 3 of 33 matches off the line: two samples in three are flat, and each hypothesis still counts
    source = np.zeros((33, 2), np.float32)
    source[:, 0] = 10 * np.arange(33)
    source[:3, 1] = [100, 200, 300]
    target = source @ PLANTED[:, :2].T + PLANTED[:, 2]
    for name in range(20):
        result = one(*padded(source, target), pair_id=name, hypotheses=1, inlier_threshold=1.0)
        assert result.inliers == 33


def test_exact_sample_by_hand():
    # (y, x) -> (2 x + 1, 3 y - 2), and a fifth point that does not belong
    source = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5]], np.float32)
    target = np.array([[1, -2], [1, 28], [21, -2], [21, 28], [90, 90]], np.float32)
    result = one(*padded(source, target))
    assert result.inlier_mask[:5].tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(result.transform, [[0, 2, 1], [3, 0, -2]], atol=1e-4)


def test_the_inlier_threshold_is_strict():
    source = np.array([[0, 0], [64, 0], [0, 64], [64, 64]], np.float32)
    for offset, inliers in ((8.0, 3), (7.5, 4)):  # the threshold is 8
        target = source + np.array([[0, 0], [0, 0], [0, 0], [offset, 0]], np.float32)
        assert one(*padded(source, target)).inliers == inliers


def test_padding_changes_nothing(rng):
    source, target, mask, _ = planted(rng)
    expected = one(source, target, mask)
    source[60:] = target[60:] = np.nan
    result = one(*(np.roll(part, 20, axis=0) for part in (source, target, mask)))
    np.testing.assert_array_equal(result.inlier_mask[20:], expected.inlier_mask[:60])
    assert not result.inlier_mask[:20].any()


def test_same_key_same_result_and_pairs_draw_apart(rng):
    source, target, mask, _ = planted(rng, noise=3.6)
    again = [one(source, target, mask, pair_id=name) for name in (0, 0, 1)]
    np.testing.assert_array_equal(again[0].transform, again[1].transform)
    assert (again[0].transform != again[2].transform).any()


def test_translation_moves_the_transform_only(rng):
    source, target, mask, _ = planted(rng)
    expected = one(source, target, mask)
    moved = one(source + np.float32(512), target - np.float32(256), mask)
    np.testing.assert_array_equal(moved.inlier_mask, expected.inlier_mask)
    points = np.array([[0.0, 0.0], [300.0, 100.0]])
    before = points @ expected.transform[:, :2].T + expected.transform[:, 2]
    after = (points + 512) @ moved.transform[:, :2].T + moved.transform[:, 2]
    np.testing.assert_allclose(after + 256, before, atol=0.02)


def test_order_of_matches_does_not_matter_without_noise(rng):
    source, target, mask, is_inlier = planted(rng, noise=0.0)
    order = rng.permutation(len(mask))
    result = one(source[order], target[order], mask[order])
    np.testing.assert_array_equal(result.inlier_mask, is_inlier[order])


DEGENERATE = {
    "source on a line": (lambda s: s * np.array([[1, 0]]) + 5, lambda t: t),
    "target on a line": (lambda s: s, lambda t: t[:, :1] * np.array([[1, 2]])),
    "one source point": (lambda s: np.full_like(s, 7), lambda t: t),
    "one target point": (lambda s: s, lambda t: np.full_like(t, 7)),
}


@pytest.mark.parametrize("case", list(DEGENERATE))
def test_degenerate_matches_verify_nothing(rng, case):
    source, target, mask, _ = planted(rng, outliers=0)
    change_source, change_target = DEGENERATE[case]
    result = one(
        change_source(source).astype(np.float32), change_target(target).astype(np.float32), mask
    )
    assert result.inliers == 0
    assert not result.inlier_mask.any()
    assert (result.transform == 0).all()


def test_duplicated_matches_do_not_spoil_good_ones(rng):
    source, target, mask, _ = planted(rng, outliers=0, noise=0.0)
    source[30:60], target[30:60] = source[0], target[0]
    assert one(source, target, mask).inliers == 60


@pytest.mark.parametrize(("matches", "inliers"), [(0, 0), (1, 0), (3, 0), (4, 4)])
def test_three_or_fewer_matches_verify_nothing(rng, matches, inliers):
    source, target, _, _ = planted(rng, outliers=0, noise=0.0)
    result = one(source, target, np.arange(80) < matches)
    assert result.inliers == inliers
    assert np.isfinite(result.transform).all()


@pytest.mark.parametrize("count", [4, 7, 1000])
def test_ranks_are_distinct_and_cover_all_matches_evenly(count):
    for size, ranks in zip((2, 3, 4), map(np.asarray, ranks_of_sizes(count)), strict=True):
        assert ranks.shape == (size, 8000)
        assert ranks.min() >= 0
        assert ranks.max() < count
        assert all(len(set(sample)) == size for sample in ranks.T)
        if count <= 7:
            for row in ranks:
                share = np.bincount(row, minlength=count) / 8000
                np.testing.assert_allclose(share, 1 / count, atol=0.03)


def test_all_samples_are_equally_likely():
    ranks = np.asarray(ranks_of_sizes(4)[1])
    _, found = np.unique(ranks, axis=1, return_counts=True)
    assert len(found) == 24
    np.testing.assert_allclose(found / 8000, 1 / 24, atol=0.01)


@jax.jit
def draw(count, least, hopeless):
    """Samples of two pairs; good are those of ranks from `least` of a pair that is not hopeless."""

    def is_good(ranks):
        return (ranks >= least).all(axis=1) & ~hopeless[:, None]

    return ransac.draw_samples(jax.random.split(KEY, 2), count, 3, 200, is_good)


def test_degenerate_samples_are_drawn_again_and_good_ones_are_kept():
    count, hopeless = np.array([9, 30]), np.zeros(2, bool)
    drawn, first = np.asarray(draw(count, 1, hopeless)), np.asarray(draw(count, 0, hopeless))
    assert (drawn != 0).all()
    kept = (first != 0).all(axis=1)
    assert not kept.all()
    np.testing.assert_array_equal(np.moveaxis(drawn, 1, 2)[kept], np.moveaxis(first, 1, 2)[kept])
    assert (np.sort(drawn, axis=1)[:, 1:] > np.sort(drawn, axis=1)[:, :-1]).all()


def test_a_pair_that_has_no_good_sample_ends_and_changes_no_other():
    count = np.array([9, 9])
    alone, together = (
        np.asarray(draw(count, 1, np.array([False, other]))) for other in (False, True)
    )
    np.testing.assert_array_equal(together[0], alone[0])


def test_pairs_without_enough_matches_cause_no_redraws():
    attempts = []

    def is_good(ranks):
        jax.debug.callback(lambda: attempts.append(1))
        return jnp.zeros((1, 200), bool)

    count = np.array([2])
    jax.jit(lambda: ransac.draw_samples(jax.random.split(KEY, 1), count, 3, 200, is_good))()
    jax.effects_barrier()
    assert len(attempts) == 1


IDENTITY = np.array([1.0, 0, 0, 1, 0, 0])


def test_errors_by_hand():
    point = np.array([10.0, 20.0, 13.0, 24.0])
    assert squared_error(IDENTITY, point) == 25.0
    # (y, x) -> (2 x + 1, 3 y - 2) is (41, 28)
    assert squared_error(np.array([0.0, 2, 3, 0, 1, -2]), point) == 28**2 + 4**2
    # The same divided by a depth of 1 + 0.1 y = 2
    homography = np.array([0.0, 2, 1, 3, 0, -2, 0.1, 0, 1])
    assert squared_error(homography, point) == pytest.approx((20.5 - 13) ** 2 + (14 - 24) ** 2)


def test_points_behind_the_horizon_have_infinite_error():
    homography = np.array([1.0, 0, 0, 0, 1, 0, -0.1, 0, 1])
    at_horizon, behind = np.array([10.0, 0, 0, 0]), np.array([20.0, 0, -20.0, 0])
    assert squared_error(homography, at_horizon) == np.inf
    assert squared_error(homography, behind) == np.inf


def test_the_score_of_one_match_by_hand():
    error = np.array([0.0, 4.0, 15.9, 16.0, np.inf])
    assert score_of(error, 4.0, "inliers").tolist() == [1, 1, 1, 0, 0]
    np.testing.assert_allclose(
        score_of(error, 4.0, "msac"), [1, 0.75, 1 - 15.9 / 16, 0, 0], atol=1e-6
    )


@pytest.mark.parametrize(
    ("scoring", "block"), [("inliers", 1), ("inliers", 4), ("inliers", 12), ("msac", 4)]
)
def test_scores_equal_a_plain_sum(rng, scoring, block):
    models = rng.normal(size=(6, 2, 7)).astype(np.float32)
    points = rng.normal(size=(2, 11, 4)).astype(np.float32)
    scores = jax.jit(partial(score, inlier_threshold=1.5, scoring=scoring, block=block))
    linear = np.moveaxis(models[:4], 0, -1).reshape(2, 7, 2, 2).astype(float)
    shift = np.moveaxis(models[4:], 0, -1)
    moved = np.einsum("mhij,mkj->mhki", linear, points[..., :2]) + shift[:, :, None]
    all_errors = np.square(moved - points[:, None, :, 2:]).sum(-1)
    for count in ([0, 3], [5, 11], [11, 11]):
        present = np.arange(11) < np.array(count)[:, None, None]
        error = np.where(present, all_errors, np.inf)
        gain = error < 1.5**2 if scoring == "inliers" else np.maximum(1 - error / 1.5**2, 0)
        found = scores(models, points, np.array(count))
        np.testing.assert_allclose(found, gain.sum(axis=2), rtol=1e-4, atol=1e-5)


upright_models = jax.jit(guided_models, static_argnames="hypotheses")


def test_each_match_makes_a_view_through_itself(rng):
    points = rng.uniform(-300, 300, (2, 6, 4)).astype(np.float32)
    ratios = rng.uniform(0.5, 2.0, (2, 6)).astype(np.float32)
    models, possible = map(np.asarray, upright_models(points, ratios, np.array([6, 4]), 5))
    assert models.shape == (6, 2, 5)
    assert possible.tolist() == [[True] * 5, [True] * 4 + [False]]
    np.testing.assert_allclose(
        squared_error(models, np.moveaxis(points[:, :5], 2, 0)), 0, atol=1e-4
    )
    np.testing.assert_array_equal(models[0, 0], ratios[0, :5])
    np.testing.assert_array_equal(models[3, 0], ratios[0, :5])
    assert (models[1:3] == 0).all()


def test_matches_of_unknown_scale_make_no_hypothesis():
    ratios = np.array([[0.0, np.inf, np.nan, 1.0, 0.0, 0.0], [1.0] * 6], np.float32)
    points = np.ones((2, 6, 4), np.float32)
    models, possible = upright_models(points, ratios, np.array([4, 6]), 5)
    assert possible.tolist() == [[False, False, False, True, False], [True] * 5]
    assert np.isfinite(models).all()


VIEWS_KEY = jax.random.key(1)

VIEWS = {
    "affine": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0]]),
    "similarity": np.array([[0.8, -0.5, 12.0], [0.5, 0.8, 7.0]]),
    "homography": np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0], [3e-4, -2e-4, 1.0]]),
}

MODELS = list(VIEWS)


def moved(view, points):
    result = np.concatenate([points, np.ones((*points.shape[:-1], 1))], axis=-1) @ view.T
    return result[..., :2] / result[..., 2:] if len(view) == 3 else result


def planted_views(rng, view, pairs=PAIRS, inliers=40, matches=80, noise=2.0, size=MATCHES):
    """Matches of one view, the first `inliers` of `matches` of them true, and padding."""
    source = rng.uniform(0, 600, (pairs, size, 2))
    target = moved(view, source) + rng.uniform(-noise, noise, source.shape)
    target[:, inliers:] += rng.choice([-1, 1], (pairs, size - inliers, 2)) * rng.uniform(
        100, 300, (pairs, size - inliers, 2)
    )
    mask = np.broadcast_to(np.arange(size) < matches, (pairs, size))
    return source.astype(np.float32), target.astype(np.float32), mask


def run(matches, ratios=None, ids=None, block=8, key=VIEWS_KEY, **options):
    ids = np.arange(len(matches[0])) if ids is None else np.array(ids)
    options = {"hypotheses": HYPOTHESES, "inlier_threshold": 8.0, **options}
    result = estimate(*matches, ids, key, RansacSettings(**options), ratios, block)
    return jax.tree.map(np.asarray, result)


PLAIN = {}
OPTIMIZED = {"local_optimization": True}
CASES = [(model, OPTIMIZED) for model in MODELS]
CASES.append(("affine", {"local_optimization": True, "scoring": "msac"}))
# Of the steps of the others
CASES += [pytest.param(model, PLAIN, marks=pytest.mark.slow) for model in MODELS]


@pytest.mark.parametrize(("model", "options"), CASES)
def test_every_model_finds_its_planted_view(rng, model, options):
    matches = planted_views(rng, VIEWS[model], noise=1.0)
    result = run(matches, model=model, **options)
    assert result.inlier_mask[:, :40].mean() >= 0.99
    assert not result.inlier_mask[:, 40:].any()
    places = rng.uniform(100, 500, (20, 2))
    for transform in result.transform:
        np.testing.assert_allclose(moved(transform, places), moved(VIEWS[model], places), atol=8.0)


@pytest.mark.parametrize(
    "model",
    [
        "affine",
        *(pytest.param(model, marks=pytest.mark.slow) for model in MODELS if model != "affine"),
    ],
)
def test_local_optimisation_never_finds_fewer(rng, model):
    gained = 0
    for noise in (6.0, 9.0, 14.0, 20.0):
        matches = planted_views(rng, VIEWS[model], noise=noise)
        plain = run(matches, model=model).inliers
        optimized = run(matches, model=model, **OPTIMIZED).inliers
        assert (optimized >= plain).all()
        gained += (optimized - plain).sum()
    assert gained > 0


def test_msac_prefers_the_closer_fit(rng):
    matches = planted_views(rng, VIEWS["affine"], noise=0.3)
    places = rng.uniform(100, 500, (20, 2))
    errors = {}
    for scoring in ("inliers", "msac"):
        found = run(matches, scoring=scoring, **OPTIMIZED).transform
        offsets = [moved(view, places) - moved(VIEWS["affine"], places) for view in found]
        errors[scoring] = np.linalg.norm(offsets, axis=-1).mean()
    assert errors["msac"] < 0.7 * errors["inliers"]


@pytest.mark.parametrize("model", ["affine", "homography"])
def test_guided_hypotheses_are_few_and_find_upright_views(rng, model):
    view = np.array([[1.5, 0.03, 20.0], [-0.03, 1.4, 5.0], [1e-5, -1e-5, 1.0]])
    view = view if model == "homography" else view[:2]
    # One in ten: an affine sample is good once in 1000
    matches = planted_views(rng, view, inliers=8, noise=1.0)
    ratios = np.full((8, 90), 1.45, np.float32)
    found = run(matches, ratios, model=model, guided=True)
    assert (found.inlier_mask[:, :8].sum(axis=1) == 8).all()
    if model == "affine":  # a sample of a homography is good even less often
        assert run(matches, model=model).inliers.sum() < found.inliers.sum()


def test_guided_hypotheses_need_the_sizes(rng):
    with pytest.raises(ValueError, match="`scale_ratios`"):
        run(planted_views(rng, VIEWS["affine"]), guided=True)


@pytest.mark.parametrize(
    ("model", "options"), [("affine", OPTIMIZED), ("homography", {"guided": True})]
)
def test_a_pair_does_not_depend_on_company_padding_or_chunks(rng, model, options):
    source, target, _ = planted_views(rng, VIEWS[model], noise=6.0)
    mask = np.arange(90) < np.array([80, 60, 0, 80, 45, 90, 2, 70])[:, None]
    ratios = rng.uniform(0.8, 1.2, mask.shape).astype(np.float32) if "guided" in options else None
    together = run((source, target, mask), ratios, np.arange(7, 15), model=model, **options)
    for row in (1, 4):
        *matches, alone_ratios = (
            None if part is None else part[row : row + 1, :80]
            for part in (source, target, mask, ratios)
        )
        alone = run(matches, alone_ratios, np.array([7 + row]), block=3, model=model, **options)
        np.testing.assert_array_equal(alone.inlier_mask[0], together.inlier_mask[row, :80])
        np.testing.assert_allclose(
            alone.transform[0], together.transform[row], rtol=1e-3, atol=1e-2
        )


def test_one_device_and_eight_give_the_same(rng):
    matches = planted_views(rng, VIEWS["affine"], noise=6.0)
    expected = run(matches, **OPTIMIZED)
    mesh = Mesh(np.array(jax.devices()), ("pairs",))
    assert mesh.size == 8
    sharded = jax.device_put(matches, NamedSharding(mesh, PartitionSpec("pairs")))
    found = run(sharded, **OPTIMIZED)
    np.testing.assert_array_equal(found.inlier_mask, expected.inlier_mask)


DEGENERATE_VIEWS = {
    "source on a line": lambda s, t: (s * np.array([[[1, 0]]], np.float32), t),
    "target on a line": lambda s, t: (s, t[..., :1] * np.array([[[1, 2]]], np.float32)),
    "one source point": lambda s, t: (np.full_like(s, 7), t),
    "one target point": lambda s, t: (s, np.full_like(t, 7)),
}


@pytest.mark.parametrize("case", list(DEGENERATE_VIEWS))
@pytest.mark.parametrize("model", MODELS)
def test_degenerate_matches_verify_no_view(rng, model, case):
    source, target, mask = planted_views(rng, VIEWS[model], inliers=90)
    source, target = DEGENERATE_VIEWS[case](source, target)
    result = run((source, target, mask), model=model, **OPTIMIZED)
    assert np.isfinite(result.transform).all()
    if model == "similarity" and "line" in case:
        assert result.inliers.max() < 20  # two points decide one, but no line fits a plane
    else:
        assert result.inliers.tolist() == [0] * 8
        assert (result.transform == 0).all()


@pytest.mark.parametrize(("model", "least"), [("similarity", 3), ("affine", 4), ("homography", 5)])
def test_a_sample_alone_verifies_nothing(rng, model, least):
    source, target, _ = planted_views(rng, VIEWS[model], inliers=90, noise=0.0)
    numbers = np.array([0, 1, least - 1, least, least, least - 1, 1, 0])
    inliers = run((source, target, np.arange(90) < numbers[:, None]), model=model, **OPTIMIZED)
    assert inliers.inliers.tolist() == np.where(numbers == least, numbers, 0).tolist()


@pytest.mark.parametrize(
    "wrong",
    [{"hypotheses": 0}, {"inlier_threshold": 0.0}, {"model": "spline"}, {"scoring": "median"}],
)
def test_wrong_options_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        RansacSettings(**wrong)
