import jax
import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.rerank import ransac
from delg_jax.rerank.ransac import RansacSettings, estimate

KEY = jax.random.key(3)
PLANTED = np.array([[0.9, -0.2, 40.0], [0.3, 1.1, -25.0]])


def planted(rng, matches=60, outliers=30, noise=2.0, size=80):
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


def one(source, target, mask, key=KEY, pair_id=0, block=8, scale_ratios=None, **options):
    options = RansacSettings(**{"hypotheses": 200, **options})
    ratios = None if scale_ratios is None else scale_ratios[None]
    arguments = source[None], target[None], mask[None], jnp.array([pair_id]), key, options, ratios
    result = estimate(*arguments, block=block)
    return jax.tree.map(lambda array: np.asarray(array[0]), result)


def reference(source, target, mask, pair_id, hypotheses, inlier_threshold):
    """RANSAC one hypothesis at a time in double precision, on the draws of the kernel."""
    valid = np.flatnonzero(mask)
    key = jax.random.fold_in(KEY, pair_id)
    keys = [key, *(jax.random.fold_in(key, attempt) for attempt in range(ransac.REDRAWS))]
    count = jnp.array(len(valid))
    draws = [valid[np.asarray(ransac.distinct_ranks(k, count, 3, hypotheses)).T] for k in keys]
    best, best_inliers = None, np.zeros(len(mask), bool)
    for candidates in zip(*draws, strict=True):
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


@pytest.mark.parametrize("noise", [0.0, 2.0])
def test_finds_the_planted_view(rng, noise):
    source, target, mask, is_inlier = planted(rng, noise=noise)
    result = one(source, target, mask, inlier_threshold=10.0)
    assert result.inlier_mask[is_inlier].mean() >= 0.99
    assert not result.inlier_mask[~is_inlier].any()
    assert result.inliers == result.inlier_mask.sum()
    if noise == 0:
        np.testing.assert_allclose(result.transform, PLANTED, atol=1e-3, rtol=1e-3)


def test_recall_of_planted_inliers_over_many_pairs(rng):
    pairs = [planted(rng, matches=100, outliers=60, size=100) for _ in range(20)]
    source, target, mask, is_inlier = (np.stack(part) for part in zip(*pairs, strict=True))
    result = estimate(source, target, mask, jnp.arange(20), KEY, RansacSettings(500))
    assert np.asarray(result.inlier_mask)[is_inlier].mean() >= 0.99


@pytest.mark.parametrize(("matches", "size"), [(4, 4), (17, 80), (40, 80)])
@pytest.mark.parametrize("grid", [1, 200])  # many samples of a coarse grid lie on a line
def test_equals_the_reference_on_the_same_draws(rng, matches, size, grid):
    source, target, mask, _ = planted(rng, matches, matches // 2, size=size)
    source, mask = np.round(source / grid) * np.float32(grid), rng.permutation(mask)
    transform, inlier_mask = reference(source, target, mask, 5, 200, 20.0)
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
        result = one(
            source, target, np.ones(33, bool), pair_id=name, hypotheses=1, inlier_threshold=1.0
        )
        assert result.inliers == 33


def test_exact_sample_by_hand():
    # (y, x) -> (2 x + 1, 3 y - 2), and a fifth point that does not belong
    source = np.array([[0, 0], [10, 0], [0, 10], [10, 10], [5, 5]], np.float32)
    target = np.array([[1, -2], [1, 28], [21, -2], [21, 28], [90, 90]], np.float32)
    result = one(source, target, np.ones(5, bool), inlier_threshold=1.0)
    assert result.inlier_mask.tolist() == [True, True, True, True, False]
    np.testing.assert_allclose(result.transform, [[0, 2, 1], [3, 0, -2]], atol=1e-4)


def test_residual_is_strict():
    source = np.array([[0, 0], [64, 0], [0, 64], [64, 64]], np.float32)
    target = source + np.array([[0, 0], [0, 0], [0, 0], [16, 0]], np.float32)
    assert one(source, target, np.ones(4, bool), inlier_threshold=16.0).inliers == 3
    assert one(source, target, np.ones(4, bool), inlier_threshold=16.5).inliers == 4


@pytest.mark.parametrize("block", [1, 3, 32])
def test_any_chunk_gives_the_same(rng, block):
    source, target, mask, _ = planted(rng)
    expected, result = one(source, target, mask), one(source, target, mask, block=block)
    np.testing.assert_array_equal(result.inlier_mask, expected.inlier_mask)
    np.testing.assert_array_equal(result.transform, expected.transform)


def test_padding_changes_nothing(rng):
    source, target, mask, _ = planted(rng)
    expected = one(source, target, mask)
    rubbish = np.full((30, 2), np.nan, np.float32)
    result = one(
        np.concatenate([rubbish, source]),
        np.concatenate([rubbish, target]),
        np.concatenate([np.zeros(30, bool), mask]),
    )
    np.testing.assert_array_equal(result.inlier_mask[30:], expected.inlier_mask)
    assert not result.inlier_mask[:30].any()


def test_a_pair_does_not_depend_on_the_others(rng):
    pairs = [planted(rng, matches=matches)[:3] for matches in (80, 50, 65)]
    source, target, mask = (np.stack(part) for part in zip(*pairs, strict=True))
    together = estimate(source, target, mask, jnp.array([7, 8, 9]), KEY, RansacSettings(200))
    for row, name in enumerate((7, 8, 9)):
        alone = one(source[row], target[row], mask[row], pair_id=name)
        np.testing.assert_array_equal(together.inlier_mask[row], alone.inlier_mask)
        np.testing.assert_allclose(together.transform[row], alone.transform, rtol=1e-5, atol=1e-4)


def test_same_key_same_result_and_pairs_draw_apart(rng):
    source, target, mask, _ = planted(rng, noise=9.0)
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
    result = one(source[order], target[order], mask[order], inlier_threshold=5.0)
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
    assert one(source, target, mask, inlier_threshold=1.0).inliers == 60


@pytest.mark.parametrize(("matches", "inliers"), [(0, 0), (1, 0), (3, 0), (4, 4)])
def test_three_or_fewer_matches_verify_nothing(rng, matches, inliers):
    source, target, _, _ = planted(rng, outliers=0, noise=0.0)
    result = one(source, target, np.arange(80) < matches)
    assert result.inliers == inliers
    assert np.isfinite(result.transform).all()
