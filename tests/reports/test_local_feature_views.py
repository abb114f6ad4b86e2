import dataclasses

import numpy as np
import pytest

from delg_jax import configuration
from delg_jax.errors import UserError
from delg_jax.features import Extracted
from delg_jax.features.extractor import Features
from delg_jax.reports.local_feature_views import LocalFeatureViews
from delg_jax.reports.workdir_results import read
from delg_jax.retrieval.methods import inlier_counter
from delg_jax.retrieval.settings import RerankSettings
from tests import stores
from tests.reports import workdirs

SHAPE = (96, 112)


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    root = tmp_path_factory.mktemp("views")
    return read(workdirs.make(root / "run", root / "data"))


def quadruples(numbers):
    return np.array(numbers).reshape(-1, 4)


def test_the_same_features_moved_all_fit(run):
    views = LocalFeatureViews(run, run.data)
    found = views.matches(2, 5, (SHAPE, SHAPE))
    assert found["inliers"] == 30
    assert found["matches"] == 30
    assert found["others"] == []
    lines = quadruples(found["lines"])
    # by 8 pixels across and down, in thousandths
    np.testing.assert_allclose(lines[:, 2] - lines[:, 0], 8000 / 112, atol=1)
    np.testing.assert_allclose(lines[:, 3] - lines[:, 1], 8000 / 96, atol=1)
    places = np.asarray(run.queries.local_features(0).locations)[2]
    np.testing.assert_allclose(lines[:, 0], 1000 * places[:, 1] / 112, atol=0.51)


def test_other_pictures_do_not_fit(run):
    found = LocalFeatureViews(run, run.data).matches(2, 0, (SHAPE, SHAPE))
    assert found["inliers"] < 15
    count = len(found["lines"]) + len(found["others"])
    assert count == 4 * found["matches"]
    assert LocalFeatureViews(run, run.data).matches(2, 0, (SHAPE, SHAPE)) == found


def test_features_of_a_crop_are_drawn_in_the_whole_picture(run):
    truth = [{**entry, "bbx": [20.4, 10.6, 60, 50]} for entry in run.data.ground_truth]
    data = dataclasses.replace(run.data, ground_truth=truth)
    moved = quadruples(LocalFeatureViews(run, data).attention("queries", 1, (200, 300)))
    plain = quadruples(LocalFeatureViews(run, None).attention("queries", 1, (200, 300)))
    np.testing.assert_allclose(moved[:, 0] - plain[:, 0], 1000 * 20 / 300, atol=1)
    np.testing.assert_allclose(moved[:, 1] - plain[:, 1], 1000 * 11 / 200, atol=1)
    database = [
        LocalFeatureViews(run, d).attention("database", 1, (200, 300)) for d in (data, None)
    ]
    assert database[0] == database[1]


def test_spots_are_the_best_features(run):
    spots = quadruples(LocalFeatureViews(run, None).attention("database", 3, None))
    assert len(spots) == 30
    assert (np.diff(spots[:, 3]) <= 0).all()
    assert spots[0, 3] == 9
    assert spots[:, 3].min() >= 1
    np.testing.assert_array_equal(spots[:, 2], round(16 * 1000 / 112))


def test_an_image_without_features_has_none(run, tmp_path, rng):
    rows = [stores.features(rng, 3), stores.features(rng, 0)]
    store = stores.fill(tmp_path / "database", rows)
    store = dataclasses.replace(run, queries=store, database=store)
    views = LocalFeatureViews(store, None)
    assert views.attention("database", 1, None) == []
    found = views.matches(0, 1, (None, None))
    assert found == {"matches": 0, "inliers": 0, "lines": [], "others": []}


def test_runs_without_local_features_and_of_another_version_are_refused(run, tmp_path, rng):
    rows = [Features(stores.features(rng, 1).global_descriptor, None)]
    store = stores.fill(tmp_path / "database", rows)
    with pytest.raises(UserError, match="no local features"):
        LocalFeatureViews(dataclasses.replace(run, queries=store, database=store), None)
    config = run.config.copy_and_resolve_references()
    with config.unlocked():
        config.rerank.sp.unknown = 1
    with pytest.raises(UserError, match="another version"):
        LocalFeatureViews(dataclasses.replace(run, config=config), None)


def test_counts_are_those_of_the_ranking(run):
    config = configuration.override(run.config, {"rerank.sp.min_inliers": 0})
    extracted = Extracted(run.data, run.database, run.queries, "")
    count = inlier_counter(extracted, RerankSettings.of(config.rerank).sp, config.seed)
    images = np.arange(len(run.database))
    views = LocalFeatureViews(run, run.data)
    for query in range(2):
        found = [views.matches(query, image, (SHAPE, SHAPE))["inliers"] for image in images]
        assert found == count(query, images).tolist()
