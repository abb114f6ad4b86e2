import dataclasses
import types

import numpy as np
import pytest

from delg_jax.rerank import SpatialSettings
from delg_jax.retrieval import verification
from delg_jax.retrieval.ranking import Ranking

INLIERS = np.array([5, 40, 0, 20, 60, 30], np.int32)  # by image


@pytest.fixture
def settings():
    """The settings, with a short list of three images."""
    return SpatialSettings(short_list=3)


@pytest.fixture(autouse=True)
def asked(monkeypatch):
    """Candidates of each query that are verified; their inliers are as above."""
    found = []

    def counter(*_):
        def count(number, candidates):
            found.append((number, sorted(candidates.tolist())))
            return np.where(np.isin(np.arange(6), candidates), INLIERS, 0)

        return count

    monkeypatch.setattr(verification, "inlier_counter", counter)
    return found


def ranking(*rows):
    images = np.array([[image for image, _ in row] for row in rows], np.int32)
    return Ranking(images, np.array([[value for _, value in row] for row in rows], np.float32))


ROW = ((0, 0.9), (1, 0.8), (2, 0.7), (3, 0.6), (4, 0.5), (5, 0.4))


def test_the_short_list_is_sorted_by_inliers_with_what_belongs_to_it(settings, asked):
    found = verification.verify(types.SimpleNamespace(), ranking(ROW), settings, 0)
    assert found.by_protocol["all"].tolist() == [[1, 0, 2, 3, 4, 5]]
    np.testing.assert_allclose(found.similarities, [[0.8, 0.9, 0.7, 0.6, 0.5, 0.4]])
    assert found.inliers.tolist() == [[40, 5, 0]]
    assert asked == [(0, [0, 1, 2])]


def test_each_protocol_clears_its_own_short_list(settings, asked):
    excluded = [{"easy": [1, 2], "hard": []}, {"easy": [], "hard": [5, 4, 3]}]
    rows = ROW, ROW[::-1]
    found = verification.verify(None, ranking(*rows), settings, 0, excluded).by_protocol
    assert found["easy"].tolist() == [[4, 3, 0, 5, 1, 2], [4, 5, 3, 2, 1, 0]]
    assert found["hard"].tolist() == [[1, 0, 2, 3, 4, 5], [1, 0, 2, 5, 4, 3]]
    assert found["all"].tolist() == [[1, 0, 2, 3, 4, 5], [4, 5, 3, 2, 1, 0]]
    assert asked == [(0, [0, 1, 2, 3, 4]), (1, [0, 1, 2, 3, 4, 5])]


def test_the_combined_score_takes_effect(settings):
    row = ((0, 1.6), (3, 1.5), (2, 0.7), (1, 0.6), (4, 0.5), (5, 0.4))
    found = verification.verify(None, ranking(row), settings, 0)
    assert found.by_protocol["all"][0, :3].tolist() == [3, 0, 2]
    settings = dataclasses.replace(settings, score="combined")  # 1.6 + 5 / 70 and 1.5 + 20 / 70
    assert verification.verify(None, ranking(row), settings, 0).by_protocol["all"][0, 0] == 3
    row = ((0, 1.9), (3, 1.5), *row[2:])
    assert verification.verify(None, ranking(row), settings, 0).by_protocol["all"][0, 0] == 0


def test_images_without_features_are_not_verified_and_stay_last(settings, asked):
    row = (*ROW[:2], (3, 0.6), (5, 0.4), (2, -np.inf), (4, -np.inf))
    settings = dataclasses.replace(settings, short_list=400)
    found = verification.verify(None, ranking(row), settings, 0, [{"easy": [1]}])
    assert found.by_protocol["all"].tolist() == [[1, 5, 3, 0, 2, 4]]
    assert found.by_protocol["easy"].tolist() == [[5, 3, 0, 1, 2, 4]]
    assert found.inliers.tolist() == [[40, 30, 20, 5, 0, 0]]
    assert asked == [(0, [0, 1, 3, 5])]


def test_no_query_gives_nothing(settings):
    nothing = Ranking(np.zeros((0, 6), np.int32), np.zeros((0, 6), np.float32))
    found = verification.verify(None, nothing, settings, 0, [])
    assert found.by_protocol["all"].shape == (0, 6)
    assert found.inliers.shape == (0, 3)
