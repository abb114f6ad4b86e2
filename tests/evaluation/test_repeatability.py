import numpy as np
import pytest

from delg_jax.evaluation import repeatability
from delg_jax.evaluation.repeatability import Pair
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings

EVERYWHERE = (-1e6, -1e6, 1e6, 1e6)
SHIFT = np.array([[1.0, 0, 100], [0, 1, 0], [0, 0, 1]])  # 100 pixels to the right
VIEW = np.array([[1.1, 0.1, 20.0], [-0.1, 0.9, 5.0], [1e-4, 0.0, 1.0]])
MEASURES = (repeatability.repeatability, repeatability.matching_score)


def features(points, descriptors=None, mask=None):
    """Of points (x, y)."""
    points = np.asarray(points, np.float32).reshape(-1, 2)
    ones = np.ones(len(points), np.float32)
    descriptors = np.eye(len(points), 40, dtype=np.float32) if descriptors is None else descriptors
    mask = ones.astype(bool) if mask is None else np.asarray(mask)
    return LocalFeatures(points[:, ::-1], ones, ones, descriptors, mask)


def through(points, view=VIEW):
    mapped = np.concatenate([points, np.ones((len(points), 1))], axis=1) @ view.T
    return mapped[:, :2] / mapped[:, 2:]


def pair(first, second, view=VIEW, areas=(EVERYWHERE, EVERYWHERE)):
    return Pair(first, second, view, *areas)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize(("off", "expected"), [(0.0, 1.0), (4.0, 1.0), (6.0, 0.0)])
def test_features_at_the_same_place_are_right(rng, measure, off, expected):
    points = np.stack(np.meshgrid(np.arange(6), np.arange(5)), axis=-1).reshape(-1, 2) * 50.0
    order = rng.permutation(30)
    moved = (through(points) + np.array([[off, 0.0]]))[order]
    descriptors = np.eye(30, 40, dtype=np.float32)
    both = pair(features(points, descriptors), features(moved, descriptors[order]))
    assert measure(both) == expected


def test_repeatability_counts_a_feature_once_and_needs_no_descriptor():
    # Three features of the first lie near the one of the second; a fourth finds none
    first = features([(0, 0), (1, 0), (2, 0), (50, 0)])
    second = features([(101, 0), (300, 0)])
    assert repeatability.repeatability(pair(first, second, SHIFT)) == 1 / 2
    assert repeatability.repeatability(pair(first, second, SHIFT), tolerance=0.5) == 1 / 2
    assert repeatability.repeatability(pair(first, features([(110, 0)]), SHIFT), 0.5) == 0


def test_the_matching_score_asks_for_the_nearest_descriptor():
    descriptors = np.eye(3, 40, dtype=np.float32)
    first = features([(0, 0), (50, 0), (90, 0)], descriptors)
    second = features([(100, 0), (150, 0), (190, 0)], descriptors[[0, 2, 1]])
    assert repeatability.matching_score(pair(first, second, SHIFT)) == pytest.approx(1 / 3)
    assert repeatability.repeatability(pair(first, second, SHIFT)) == 1


@pytest.mark.parametrize("measure", MEASURES)
def test_only_what_both_photographs_show_counts(measure):
    # Those at 150 are outside the second photograph, that at 100 is outside the first's area
    first = features([(10, 10), (150, 10), (90, 10)])
    second = features([(110, 10), (130, 90), (200, 10)], np.eye(3, 40, dtype=np.float32))
    areas = ((0, 0, 80, 80), (100, 0, 220, 80))
    assert measure(pair(first, second, SHIFT, areas)) == 1


@pytest.mark.parametrize("measure", MEASURES)
def test_padding_does_not_count(measure):
    first = features([(0, 0), (50, 0)], mask=[True, False])
    second = features([(100, 0), (0, 0)], mask=[True, False])
    assert measure(pair(first, second, SHIFT)) == 1


def test_without_features_there_is_no_number():
    some, none = features([(0, 0)]), features([])
    for measure in MEASURES:
        assert np.isnan(measure(pair(none, some, SHIFT)))
    assert np.isnan(repeatability.repeatability(pair(some, none, SHIFT)))
    assert repeatability.matching_score(pair(some, none, SHIFT)) == 0


@pytest.mark.parametrize("measure", MEASURES)
def test_the_order_of_features_changes_nothing(rng, measure):
    points, others = rng.uniform(0, 60, (2, 30, 2))
    descriptors = rng.normal(size=(2, 30, 40)).astype(np.float32)
    order = rng.permutation(30)
    sides = features(points, descriptors[0]), features(through(others), descriptors[1])
    turned = features(points[order], descriptors[0][order]), sides[1]
    assert measure(pair(*turned)) == measure(pair(*sides))
    assert 0 < measure(pair(*sides), 20.0) < 1


def test_repeatability_is_that_of_a_plain_count(rng):
    points, others = rng.uniform(0, 60, (2, 25, 2))
    mapped = through(points)
    found = 0
    for number, place in enumerate(mapped):
        gaps = [np.hypot(*(place - other)) for other in others]
        best = int(np.argmin(gaps))
        back = int(np.argmin([np.hypot(*(other - others[best])) for other in mapped]))
        found += back == number and gaps[best] <= 5
    both = pair(features(points), features(others))
    assert repeatability.repeatability(both) == pytest.approx(found / 25)
    assert found > 2


@pytest.mark.parametrize(("off", "expected"), [(0.0, 1.0), (4.0, 1.0), (6.0, 0.0)])
def test_inliers_are_compared_with_the_true_view(rng, off, expected):
    points = rng.uniform(0, 300, (30, 2))
    view = VIEW * np.array([[1, 1, 1], [1, 1, 1], [0, 0, 1]])  # affine, as spatial verification
    both = pair(features(points), features(through(points, view) + np.array([[off, 0.0]])), view)
    settings = SpatialSettings(hypotheses=50, inlier_threshold=2.0)
    found = repeatability.correct_inliers(both, settings)
    assert len(found) == 30
    assert found.mean() == expected
    measured = repeatability.measure(both, settings)
    np.testing.assert_array_equal(measured.correct, found)
    assert measured.repeatability == repeatability.repeatability(both)
    assert measured.matching_score == repeatability.matching_score(both) == expected


def test_a_match_behind_the_camera_is_wrong():
    view = np.array([[1.0, 0, 0], [0, 1, 0], [-0.1, 0, 1]])
    both = pair(features([(20, 0), (1, 0)]), features([(-20, 0), (1 / 0.9, 0)]), view)
    assert repeatability.correct_matches(both, np.array([[0, 0], [1, 1]])).tolist() == [False, True]
