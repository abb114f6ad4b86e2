import numpy as np
import pytest

from delg_jax.rerank.chance import CHANCE, LEAST_PAIRS, LEVELS, ChanceModel


def planted(rng, pairs=400, right=0):
    """Pairs whose inliers are exponential above what grows with the features, some of a place."""
    features = rng.choice([125, 250, 500, 1000], pairs)
    inliers = 4 * np.log2(features) - 20 + rng.exponential(6, pairs)
    inliers[:right] *= 10
    return features, inliers.astype(int)


def share_of(features, least):
    """The true share of wrong images with at least so many inliers."""
    return np.exp(-(least - 4 * np.log2(features) + 20) / 6)


def test_the_chance_is_that_of_numpy(rng):
    model = ChanceModel.fit(*planted(rng))
    features, inliers = planted(np.random.default_rng(9), 20_000)
    for size in (125, 500, 1000):
        counts = np.sort(inliers[features == size])
        for share in (0.5, 0.1, 0.02):
            least = np.quantile(counts, 1 - share)
            assert model.chance(np.array([least]), size)[0] == pytest.approx(share, rel=0.5)


def test_levels_hold_as_few_wrong_images_as_they_say(rng):
    model = ChanceModel.fit(*planted(rng))
    for level, most in LEVELS.items():
        shares = [share_of(size, model.least(level, size)) for size in (125, 250, 500, 1000)]
        assert max(shares) < 5 * most
        assert min(shares) > most / 10


def test_a_few_pairs_of_the_same_place_move_little(rng):
    clean = ChanceModel.fit(*planted(rng))
    mixed = ChanceModel.fit(*planted(np.random.default_rng(0), right=20))
    assert clean.least("strong", 1000) < mixed.least("strong", 1000)
    assert mixed.least("strong", 1000) < 2 * clean.least("strong", 1000)
    assert mixed.levels([200], 1000) == ["strong"]


def test_more_inliers_never_raise_the_chance(rng):
    model = ChanceModel.fit(*planted(rng))
    for features in (0, 10, 700, 5000):
        chance = model.chance(np.arange(500), features)
        assert np.all(np.diff(chance) <= 0)
        assert chance[0] == 1
        assert chance[-1] > 0
        levels = model.levels(np.arange(500), features)
        assert sorted(levels, key=[CHANCE, "weak", "strong"].index) == levels
        assert set(levels) == {CHANCE, "weak", "strong"}


def test_more_features_need_more_inliers(rng):
    model = ChanceModel.fit(*planted(rng))
    for level in LEVELS:
        least = [model.least(level, features) for features in (50, 200, 800)]
        assert least == sorted(set(least))
        first = model.levels([least[1] - 1, least[1]], 200)
        assert first[1] == level
        assert first[0] != level


def test_the_order_of_pairs_is_irrelevant(rng):
    features, inliers = planted(rng)
    order = rng.permutation(len(features))
    first, second = ChanceModel.fit(features, inliers), ChanceModel.fit(features[order], inliers)
    assert first != second
    # Pairs with as many features may fall into other groups, which moves a median a little
    same = ChanceModel.fit(features[order], inliers[order])
    assert same.least("weak", 1000) == pytest.approx(first.least("weak", 1000), rel=0.1)


@pytest.mark.parametrize("inliers", [0, 7])
def test_pairs_that_are_all_alike(inliers):
    model = ChanceModel.fit(np.full(LEAST_PAIRS, 100), np.full(LEAST_PAIRS, inliers))
    assert model.levels([inliers, 100], 100) == [CHANCE, "strong"]
    assert np.isfinite(model.chance(np.arange(9), 0)).all()


def test_too_few_pairs_tell_nothing():
    few = np.ones(LEAST_PAIRS - 1, int)
    assert ChanceModel.fit(few, few) is None
    assert ChanceModel.fit(few[:0], few[:0]) is None
