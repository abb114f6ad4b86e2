"""The default minimum of inliers against chance, and recall beside other libraries."""

import numpy as np
import pytest

from delg_jax.rerank import SpatialSettings
from experiments.benchmarks import ransac_inliers

MODELS = ["affine", pytest.param("homography", marks=pytest.mark.slow)]


@pytest.mark.parametrize("matches", [20, 300])
def test_random_matches_stay_below_the_default_minimum(matches):
    settings = SpatialSettings()
    counts = ransac_inliers.by_chance(matches, 20, settings.ransac)
    assert 0 < counts.max() < settings.min_inliers


@pytest.mark.slow
def test_ten_thousand_random_pairs_stay_below_the_default_minimum():
    settings = SpatialSettings()
    for matches, pairs in ((20, 3000), (100, 3000), (1000, 4000)):
        assert (
            ransac_inliers.by_chance(matches, pairs, settings.ransac).max() < settings.min_inliers
        )


@pytest.mark.parametrize("model", MODELS)
def test_planted_views_are_found_as_by_the_others(model):
    """The full grid of shares, noises and matches is `experiments.benchmarks.ransac_inliers`."""
    found = ransac_inliers.recalls(model, 0.4, 2.0, 100, 3, 1000)
    ours = found.pop("ours, optimised")
    assert ours >= 0.99
    for theirs in found.values():
        assert ours >= theirs - 0.02


def test_planted_matches_are_the_view(rng):
    planted = ransac_inliers.plant(rng, "affine", 2, 50, 0.4, 0.0)
    assert planted.truth.sum(axis=1).tolist() == [20, 20]
    for source, target, truth in zip(*planted, strict=True):
        design = np.concatenate([source[truth], np.ones((20, 1))], axis=1)
        assert np.linalg.lstsq(design, target[truth])[1].sum() < 1e-12
    assert ransac_inliers.recalls("affine", 0.05, 0.0, 20, 1, 10) is None
