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
from delg_jax.retrieval.calibration import CHANCE, LEAST_PAIRS, LEVELS, ChanceModel, levels
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


def test_a_level_is_reached_as_often_as_by_counting(rng):
    """Other wrong pairs, counted: where so few are searched that the share can be seen."""
    model = ChanceModel.fit(*planted(rng, 4_000))
    features, inliers = planted(np.random.default_rng(9), 20_000)
    for size in (125, 500, 1000):
        for images in (2, 10, 30):
            reached = inliers[features == size] >= model.least(size, images)["weak"]
            assert LEVELS["weak"] / 2 < images * reached.mean() < 2 * LEVELS["weak"]


# The more images, the further the fitted tail is extrapolated, and the more its scale matters
@pytest.mark.parametrize(("images", "factor"), [(20, 3), (1_000, 4), (1_000_000, 8)])
def test_a_search_has_as_few_wrong_images_of_a_level_as_it_says(rng, images, factor):
    """For any number of images searched: in a million, chance alone reaches more."""
    model = ChanceModel.fit(*planted(rng, 4_000))
    for size in (125, 250, 500, 1000):
        for level, least in model.least(size, images).items():
            wrong = images * share_of(size, least)
            assert LEVELS[level] / factor < wrong < factor * LEVELS[level]


def test_more_images_need_more_inliers(rng):
    model = ChanceModel.fit(*planted(rng))
    for level in LEVELS:
        least = [model.least(500, images)[level] for images in (0, 1, 100, 10_000, 1_000_000)]
        assert least == sorted(least)
        assert len(set(least)) >= 4


def test_a_few_pairs_of_the_same_place_move_little(rng):
    clean = ChanceModel.fit(*planted(rng)).least(1000, 100)
    mixed = ChanceModel.fit(*planted(np.random.default_rng(0), right=20)).least(1000, 100)
    assert clean["strong"] < mixed["strong"] < 2 * clean["strong"]
    assert levels([200], mixed) == ["strong"]


def test_more_inliers_never_lower_the_level(rng):
    model = ChanceModel.fit(*planted(rng))
    for features in (0, 10, 700, 5000):
        found = levels(range(500), model.least(features, 100))
        assert sorted(found, key=[CHANCE, "weak", "strong"].index) == found
        assert set(found) == {CHANCE, "weak", "strong"}


def test_more_features_need_more_inliers(rng):
    model = ChanceModel.fit(*planted(rng))
    needed = [model.least(features, 100) for features in (50, 200, 800)]
    for level in LEVELS:
        least = [one[level] for one in needed]
        assert least == sorted(set(least))
        first = levels([least[1] - 1, least[1]], needed[1])
        assert first[1] == level
        assert first[0] != level


def test_the_order_of_pairs_is_irrelevant(rng):
    features, inliers = planted(rng)
    order = rng.permutation(len(features))
    first, second = ChanceModel.fit(features, inliers), ChanceModel.fit(features[order], inliers)
    assert first != second
    # Pairs with as many features may fall into other groups, which moves a median a little
    same = ChanceModel.fit(features[order], inliers[order])
    needed = [model.least(1000, 100)["weak"] for model in (same, first)]
    assert needed[0] == pytest.approx(needed[1], rel=0.1)


@pytest.mark.parametrize("inliers", [0, 7])
def test_pairs_that_are_all_alike(inliers):
    model = ChanceModel.fit(np.full(LEAST_PAIRS, 100), np.full(LEAST_PAIRS, inliers))
    assert levels([inliers, 100], model.least(100, 100)) == [CHANCE, "strong"]
    assert levels([inliers], model.least(0, 1)) == [CHANCE]


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
    assert first.least(40, 20)["strong"] > first.least(40, 20)["weak"] > 3
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
