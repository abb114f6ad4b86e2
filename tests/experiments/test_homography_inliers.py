import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings
from experiments import homography_inliers


def features(places, descriptors):
    ones = np.ones(len(places), np.float32)
    return LocalFeatures(places.astype(np.float32), ones, ones, descriptors, ones.astype(bool))


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1.0), (4.0, 1.0), (6.0, 0.0)])
def test_inliers_are_compared_with_the_true_view(rng, off, expected):
    descriptors = np.eye(30, 32, dtype=np.float32)
    view = np.array([[1.1, 0.1, 20.0], [-0.1, 0.9, 5.0], [0.0, 0.0, 1.0]])  # for (x, y)
    there = rng.uniform(0, 300, (30, 2))
    here = there @ view[:2, :2].T + view[:2, 2] - np.array([7.0, 3.0]) + np.array([off, 0.0])
    query, image = features(here[:, ::-1], descriptors), features(there[:, ::-1], descriptors)
    settings = SpatialSettings(hypotheses=50, residual=2.0)
    found = homography_inliers.correct(query, image, view, (7.0, 3.0), settings)
    assert len(found) == 30
    assert found.mean() == expected


def test_rows_by_tilt():
    right, wrong = np.ones(3, bool), np.zeros(1, bool)
    results = [(1.0, right), (1.1, wrong), (1.9, wrong[:0]), (np.nan, right)]
    assert homography_inliers.rows(results) == [
        ("1 to 1.15", "2", "2.0", "75.0%"),
        ("1.6 to 2", "1", "0.0", "-"),
    ]
