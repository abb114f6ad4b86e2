import dataclasses
from unittest import mock

import numpy as np
import pytest

from delg_jax import configuration, workdir
from delg_jax.errors import UserError
from delg_jax.features.experiment import sections
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings
from delg_jax.retrieval import calibration
from delg_jax.retrieval.calibration import CHANCE, LEAST_PAIRS, LEVELS, ChanceModel
from delg_jax.retrieval.settings import RerankSettings
from tests import tiny


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


@pytest.mark.parametrize("images", [20, 1_000, 1_000_000])
def test_a_search_has_as_few_wrong_images_of_a_level_as_it_says(rng, images):
    """For any number of images searched: in a million, chance alone reaches more."""
    model = ChanceModel.fit(*planted(rng, 4_000))
    for level, most in LEVELS.items():
        wrong = [images * share_of(f, model.least(level, f, images)) for f in (125, 250, 500, 1000)]
        assert max(wrong) < 10 * most
        assert min(wrong) > most / 10


def test_more_images_need_more_inliers(rng):
    model = ChanceModel.fit(*planted(rng))
    for level in LEVELS:
        least = [model.least(level, 500, images) for images in (0, 1, 100, 10_000, 1_000_000)]
        assert least == sorted(least)
        assert len(set(least)) >= 4


def test_a_few_pairs_of_the_same_place_move_little(rng):
    clean = ChanceModel.fit(*planted(rng))
    mixed = ChanceModel.fit(*planted(np.random.default_rng(0), right=20))
    assert clean.least("strong", 1000, 100) < mixed.least("strong", 1000, 100)
    assert mixed.least("strong", 1000, 100) < 2 * clean.least("strong", 1000, 100)
    assert mixed.levels([200], 1000, 100) == ["strong"]


def test_more_inliers_never_raise_the_chance(rng):
    model = ChanceModel.fit(*planted(rng))
    for features in (0, 10, 700, 5000):
        chance = model.chance(np.arange(500), features)
        assert np.all(np.diff(chance) <= 0)
        assert chance[0] == 1
        assert chance[-1] > 0
        levels = model.levels(np.arange(500), features, 100)
        assert sorted(levels, key=[CHANCE, "weak", "strong"].index) == levels
        assert set(levels) == {CHANCE, "weak", "strong"}


def test_more_features_need_more_inliers(rng):
    model = ChanceModel.fit(*planted(rng))
    for level in LEVELS:
        least = [model.least(level, features, 100) for features in (50, 200, 800)]
        assert least == sorted(set(least))
        first = model.levels([least[1] - 1, least[1]], 200, 100)
        assert first[1] == level
        assert first[0] != level


def test_the_order_of_pairs_is_irrelevant(rng):
    features, inliers = planted(rng)
    order = rng.permutation(len(features))
    first, second = ChanceModel.fit(features, inliers), ChanceModel.fit(features[order], inliers)
    assert first != second
    # Pairs with as many features may fall into other groups, which moves a median a little
    same = ChanceModel.fit(features[order], inliers[order])
    assert same.least("weak", 1000, 100) == pytest.approx(first.least("weak", 1000, 100), rel=0.1)


@pytest.mark.parametrize("inliers", [0, 7])
def test_pairs_that_are_all_alike(inliers):
    model = ChanceModel.fit(np.full(LEAST_PAIRS, 100), np.full(LEAST_PAIRS, inliers))
    assert model.levels([inliers, 100], 100, 100) == [CHANCE, "strong"]
    assert np.isfinite(model.chance(np.arange(9), 0)).all()


def test_too_few_pairs_tell_nothing():
    few = np.ones(LEAST_PAIRS - 1, int)
    assert ChanceModel.fit(few, few) is None
    assert ChanceModel.fit(few[:0], few[:0]) is None


# Two pairs at a time on each of eight devices: ten pairs are padded to a block
SETTINGS = SpatialSettings(hypotheses=50, max_features=40, min_inliers=15, pair_block=2)


@dataclasses.dataclass
class Database:
    """Images of random features; those of one place share them, and are alike globally."""

    places: int
    views: int = 1
    counted: int = 0

    def __post_init__(self):
        rng = np.random.default_rng(3)
        shape = self.places, self.views, 40
        descriptors = rng.normal(size=(self.places, 1, 40, 16)) + np.zeros((*shape, 16))
        descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
        locations = rng.uniform(0, 500, (self.places, 1, 40, 2)) + np.zeros((*shape, 2))
        images = self.places * self.views
        self.local = LocalFeatures(
            locations.reshape(images, 40, 2).astype(np.float32),
            np.ones((images, 40), np.float32),
            rng.uniform(size=(images, 40)).astype(np.float32),
            descriptors.reshape(images, 40, 16).astype(np.float32),
            np.ones((images, 40), bool),
        )
        self.descriptors = np.repeat(np.eye(self.places, dtype=np.float32), self.views, axis=0)

    def present(self, kind):
        del kind
        return np.ones(len(self.descriptors), bool)

    def global_descriptors(self):
        return self.descriptors

    def local_features(self, count):
        assert count == SETTINGS.max_features
        self.counted += 1
        return self.local

    def digest(self):
        return f"{self.places} {self.views}"


def test_pairs_show_different_places():
    features, inliers = calibration.wrong_pairs(Database(places=4, views=3), SETTINGS, 0)
    assert len(features) == calibration.QUERIES * len(calibration.SHARES) * 6  # the unlike half
    assert sorted(set(features.tolist())) == [5, 10, 20, 40]
    assert inliers.max() < 15  # of the same place it would be 40
    assert inliers[features == 40].mean() > inliers[features == 5].mean() > 0


def test_every_seed_draws_other_pairs_and_the_same_one_the_same():
    database = Database(places=30)
    first, again = (calibration.wrong_pairs(database, SETTINGS, 0) for _ in range(2))
    np.testing.assert_array_equal(first, again)
    other = calibration.wrong_pairs(database, SETTINGS, 1)
    assert len(first[0]) == calibration.QUERIES * len(calibration.SHARES) * calibration.IMAGES
    assert not np.array_equal(first[1], other[1])


@pytest.mark.parametrize("images", [0, 1, 2])
def test_few_images_are_too_few_to_tell(images, tmp_path):
    features, inliers = calibration.wrong_pairs(Database(places=images), SETTINGS, 0)
    assert len(features) == len(inliers) < LEAST_PAIRS


def config(**changes):
    changed = {"rerank.sp.hypotheses": 50, "rerank.sp.max_features": 40} | changes
    changed |= {"rerank.sp.pair_block": 2}
    return configuration.override(tiny.tiny_config().lock(), changed)


def load(folder, database, chosen=None, weights="w"):
    chosen = chosen or config()
    fields = (*sections(chosen), *calibration.DECIDING_FIELDS)
    output = workdir.Output.of(folder / calibration.FOLDER, chosen, fields, {"weights": weights})
    sp = RerankSettings.of(chosen.rerank).sp
    return calibration.load_or_measure(output, sp, chosen.seed, database.digest(), database)


def test_it_is_measured_once_for_features_and_settings(tmp_path):
    database = Database(places=20)
    first = load(tmp_path, database)
    assert first.least("strong", 40, 20) > first.least("weak", 40, 20) > 3
    same = config(**{"rerank.sp.min_inliers": 3, "rerank.sp.short_list": 7, "search.power": 4.0})
    for again in (load(tmp_path, database), load(tmp_path, database, same)):
        assert again == first
    assert database.counted == 1
    for chosen, weights in (
        (config(**{"rerank.sp.inlier_threshold": 5.0}), "w"),
        (config(seed=7), "w"),
        (None, "v"),
    ):
        before = database.counted
        assert load(tmp_path, database, chosen, weights) != first or weights == "v"
        assert database.counted == before + 1
    other = Database(places=21)
    load(tmp_path, other)
    assert other.counted == 1


def test_a_damaged_file_is_named(tmp_path):
    load(tmp_path, Database(places=20))
    path = tmp_path / calibration.FOLDER / "inliers.json"
    path.write_text(path.read_text().replace("[", "[1,", 1))
    with pytest.raises(UserError) as raised:
        load(tmp_path, Database(places=20))
    assert raised.value.value == str(path)


def test_an_interrupted_measurement_is_repeated(tmp_path, monkeypatch):
    database = Database(places=20)
    first = load(tmp_path, database)
    with monkeypatch.context() as patch:
        interrupt = mock.Mock(side_effect=KeyboardInterrupt)
        patch.setattr(workdir.Output, "describe", interrupt)
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path, database, config(seed=5))
    assert load(tmp_path, database) == first
    assert database.counted == 3
