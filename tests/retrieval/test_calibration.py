import dataclasses
import types

import numpy as np
import pytest

from delg_jax import configuration, workdir
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.chance import LEAST_PAIRS
from delg_jax.retrieval import calibration
from tests import tiny

SETTINGS = SpatialSettings(hypotheses=50, max_features=40, min_inliers=15)


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
    return configuration.override(tiny.tiny_config().lock(), changed)


def load(folder, database, chosen=None, weights="w"):
    extracted = types.SimpleNamespace(weights=weights, database=database)
    return calibration.load_or_measure(chosen or config(), folder, extracted, database)


def test_it_is_measured_once_for_features_and_settings(tmp_path):
    database = Database(places=20)
    first = load(tmp_path, database)
    assert first.least("strong", 40) > first.least("weak", 40) > 3
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
        patch.setattr(workdir, "describe", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            load(tmp_path, database, config(seed=5))
    assert load(tmp_path, database) == first
    assert database.counted == 3
