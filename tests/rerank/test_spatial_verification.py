import dataclasses

import jax
import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.ransac import RansacSettings
from delg_jax.rerank.spatial_verification import (
    count_inliers,
    match,
    rerank,
    short_list,
    verify,
    verify_pair,
)
from delg_jax.search import descriptor_similarity
from delg_jax.search.descriptor_similarity import HAMMING

# Compiled as a whole, as in the verification: each single operation would be a program of its own
binarize = jax.jit(descriptor_similarity.binarize)


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def reference(query, query_mask, image, mask, max_distance, ratio, mutual):
    """Brute force over one image: nearest neighbour or -1 of each query feature."""
    distance = np.linalg.norm(query[:, None].astype(float) - image[None].astype(float), axis=-1)
    distance[~query_mask], distance[:, ~mask] = np.inf, np.inf
    result = np.full(len(query), -1)
    for feature, row in enumerate(distance):
        nearest = np.argmin(row)
        second = np.delete(row, nearest).min(initial=np.inf)
        if not query_mask[feature] or not row[nearest] < max_distance:
            continue
        if ratio and not row[nearest] < ratio * second:
            continue
        if mutual and np.argmin(distance[:, nearest]) != feature:
            continue
        result[feature] = nearest
    return result


def on_circle(*degrees):
    angles = np.radians(np.array(degrees, np.float32))
    return np.stack([np.cos(angles), np.sin(angles)], axis=-1)


def matched(query, images, query_mask=None, mask=None, ratio=0.0, mutual=False):
    """`match` within a distance of 1, on padded arrays of one shape: each shape compiles."""
    count, features, dimension = len(query), images.shape[1], query.shape[1]
    query_mask = np.ones(count, bool) if query_mask is None else query_mask
    mask = np.ones(images.shape[:2], bool) if mask is None else mask
    index, valid = match(
        np.pad(query, ((0, 9 - count), (0, 4 - dimension))),
        np.pad(query_mask, (0, 9 - count)),
        np.pad(images, ((0, 3 - len(images)), (0, 7 - features), (0, 4 - dimension))),
        np.pad(mask, ((0, 3 - len(images)), (0, 7 - features))),
        1.0,
        ratio,
        mutual,
    )
    assert index.shape == valid.shape == (3, 9)
    assert not np.asarray(valid)[:, count:].any()
    assert not np.asarray(valid)[len(images) :].any()
    return np.asarray(index)[: len(images), :count], np.asarray(valid)[: len(images), :count]


def test_by_hand():
    index, valid = matched(on_circle(0, 90, 200), on_circle(10, 80, 5)[None])
    assert index.tolist() == [[2, 1, 1]]
    assert valid.tolist() == [[True, True, False]]


def test_distance_is_strict():
    # Descriptors 60 degrees apart, with an exact cosine of 1/2, lie at distance 1
    query, image = np.array([[1, 0]], np.float32), np.array([[[0.5, 0.75**0.5]]], np.float32)
    assert not matched(query, image)[1].any()
    assert matched(query, image + np.float32([1e-4, 0]))[1].all()


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.8])
def test_equals_brute_force(rng, ratio, mutual):
    for queries, features in ((9, 5), (5, 7), (1, 1)):
        query, images = unit(rng, queries, 4), unit(rng, 3, features, 4)
        query_mask, mask = rng.random(queries) < 0.8, rng.random((3, features)) < 0.7
        query_mask[0], mask[:, 0] = True, True
        index, valid = matched(query, images, query_mask, mask, ratio, mutual)
        found = np.where(valid, index, -1)
        for row, image, present in zip(found, images, mask, strict=True):
            expected = reference(query, query_mask, image, present, 1.0, ratio, mutual)
            np.testing.assert_array_equal(row, expected)


def test_one_feature_passes_the_ratio():
    query, image = on_circle(0), on_circle(30)[None]
    assert matched(query, image, ratio=0.8, mutual=True)[1].all()


def test_values_on_padding_are_never_used(rng):
    query, images = unit(rng, 4, 4), unit(rng, 2, 5, 4)
    mask = np.array([[True] * 3 + [False] * 2] * 2)
    expected = matched(query, images[:, :3], ratio=0.8, mutual=True)
    images[:, 3:] = 1e6
    found = matched(query, images, mask=mask, ratio=0.8, mutual=True)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


def test_nothing_matches_an_image_or_a_query_without_features(rng):
    query = unit(rng, 4, 4)
    images = np.stack([query, query])
    mask = np.array([[True] * 4, [False] * 4])
    _, valid = matched(query, images, mask=mask)
    assert valid[0].all()
    assert not valid[1].any()
    assert not matched(query, images, np.zeros(4, bool), mask)[1].any()


def test_duplicates_go_to_the_lower_index_and_fail_the_ratio(rng):
    query = unit(rng, 1, 4)
    images = np.repeat(query[None], 3, axis=1)
    assert [part.tolist() for part in matched(query, images)] == [[[0]], [[True]]]
    assert not matched(query, images, ratio=0.8)[1].any()


def test_images_do_not_depend_on_each_other(rng):
    query, images = unit(rng, 6, 4), unit(rng, 3, 7, 4)
    together, alone = matched(query, images), matched(query, images[2:])
    np.testing.assert_array_equal(together[0][2], alone[0][0])
    np.testing.assert_array_equal(together[1][2], alone[1][0])


def test_half_floats_match_like_single(rng):
    query, images = unit(rng, 9, 4), unit(rng, 3, 7, 4).astype(np.float16)
    half, single = matched(query, images), matched(query, images.astype(np.float32))
    np.testing.assert_array_equal(half[0], single[0])
    np.testing.assert_array_equal(half[1], single[1])


@pytest.mark.parametrize("scale", [40.0, 127.0])
def test_bytes_match_like_the_vectors_they_round(rng, scale):
    # Of each descriptor's own length, and with features so far apart that rounding decides nothing
    images = unit(rng, 2, 8, 32)
    noisy = images[:, ::-1] + 0.02 * unit(rng, 2, 8, 32)
    query = (noisy[0] * rng.uniform(0.5, 1.0, (8, 1)) * scale).round().astype(np.int8)
    database = (images * scale).round().astype(np.int8)
    database[:, 6:] = 0  # padding
    mask = np.arange(8)[None] < np.array([[6], [6]])
    index, valid = match(query, np.ones(8, bool), database, mask, 0.5)
    index, valid = np.asarray(index), np.asarray(valid)
    assert index[0, 2:].tolist() == [5, 4, 3, 2, 1, 0]
    assert valid[0].tolist() == [False] * 2 + [True] * 6
    assert not valid[1].any()


@pytest.mark.parametrize("hamming", HAMMING)
def test_packed_signs_match_like_unit_vectors(rng, hamming):
    # A dimension whose square root is exact, so that both ways meet the same ties
    query, images = (
        np.where(unit(rng, *shape) > 0, 0.25, -0.25) for shape in ((9, 16), (3, 7, 16))
    )
    query_mask, mask = rng.random(9) < 0.8, rng.random((3, 7)) < 0.7
    mask[:, 0] = True
    index, valid = match(
        binarize(query), query_mask, binarize(images), mask, 0.9, 0.9, True, hamming
    )
    found = np.where(np.asarray(valid), np.asarray(index), -1)
    for row, image, present in zip(found, images, mask, strict=True):
        expected = reference(query, query_mask, image, present, 0.9, 0.9, True)
        np.testing.assert_array_equal(row, expected)


def test_descriptors_of_two_kinds_are_refused(rng):
    query, images = unit(rng, 2, 8), unit(rng, 1, 3, 8)
    with pytest.raises(ValueError, match="`descriptors`.*float32, uint8"):
        match(query, np.ones(2, bool), images.astype(np.uint8), np.ones((1, 3), bool), 1.0)


KEY = jax.random.key(0)
# Each value of the settings compiles a program of its own
SETTINGS = SpatialSettings(hypotheses=200, inlier_threshold=5.0, min_inliers=12, pair_block=2)


def features(locations, descriptors, mask=None):
    ones = np.ones(locations.shape[:-1], np.float32)
    mask = ones.astype(bool) if mask is None else mask
    return LocalFeatures(locations, ones, ones, descriptors, mask)


@pytest.fixture
def scene(rng):
    """A query, and images that show 40, 0, 15 and 40 of its 40 features in another view."""
    descriptors = rng.normal(size=(40, 16)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    locations = rng.uniform(0, 500, (40, 2)).astype(np.float32)
    view = np.array([[0.8, 0.3], [-0.2, 1.1]], np.float32)
    images, places, masks = [], [], []
    for seen in (40, 0, 15, 40):
        order = rng.permutation(40)
        place = locations @ view.T + 30
        place[seen:] = rng.uniform(0, 2000, (40 - seen, 2))
        images.append(descriptors[order])
        places.append(place[order].astype(np.float32))
        masks.append(np.ones(40, bool))
    masks[3] = order < 25  # hides all but the first 25 features of the last image
    candidates = features(np.stack(places), np.stack(images), np.stack(masks))
    return features(locations, descriptors), candidates


def test_counts_what_is_seen_from_another_view(scene):
    inliers = count_inliers(*scene, np.arange(4), KEY, SETTINGS)
    assert inliers.dtype == np.int32
    assert inliers[0] == 40
    assert 0 < inliers[1] < 8
    assert 15 <= inliers[2] < 20
    assert 25 <= inliers[3] < 30


def test_fewer_than_the_least_inliers_count_as_none(scene):
    inliers = count_inliers(*scene, np.arange(4), KEY, SETTINGS)
    found = verify(*scene, np.arange(4), KEY, SETTINGS)
    assert found.dtype == np.int32
    assert found.tolist() == [inliers[0], 0, inliers[2], inliers[3]]
    query, candidates = scene
    for features, count in ((12, 12), (11, 0)):
        few = query._replace(mask=np.arange(40) < features)
        assert verify(few, candidates, np.arange(4), KEY, SETTINGS)[0] == count


def test_any_block_and_number_of_devices_give_the_same(scene):
    expected = count_inliers(*scene, np.arange(4), KEY, SETTINGS)
    settings, devices = dataclasses.replace(SETTINGS, pair_block=1), jax.devices()
    assert len(devices) == 8
    # One pair at a time instead of a padded block of all
    found = count_inliers(*scene, np.arange(4), KEY, settings, devices[:1])
    np.testing.assert_array_equal(found, expected)


def test_a_count_follows_its_image_through_any_short_list(scene, rng):
    # Pairs of an image that shows nothing of the query, where the draws decide the count
    query, candidates = scene
    candidates = LocalFeatures(*(np.repeat(part[1:2], 20, axis=0) for part in candidates))
    expected = count_inliers(query, candidates, np.arange(20), KEY, SETTINGS)
    assert len(set(expected)) > 1
    order = rng.permutation(20)[:17]
    shuffled = LocalFeatures(*(part[order] for part in candidates))
    found = count_inliers(query, shuffled, order, KEY, SETTINGS)
    np.testing.assert_array_equal(found, expected[order])


def test_only_the_strongest_features_take_part(scene):
    query, candidates = scene
    settings = dataclasses.replace(SETTINGS, max_features=10)
    inliers = count_inliers(query, candidates, np.arange(4), KEY, settings)
    cut = (
        LocalFeatures(*(part[:10] for part in query)),
        LocalFeatures(*(part[:, :10] for part in candidates)),
    )
    np.testing.assert_array_equal(inliers, count_inliers(*cut, np.arange(4), KEY, settings))
    assert inliers.max() <= 10


def test_matching_settings_take_effect(scene, rng):
    query, _ = scene
    first, second = query.descriptors.copy(), query.descriptors.copy()
    second[30:] = second[10:20]  # two neighbours of features 10 to 19: the ratio
    first[30:] = first[20:30]  # a second feature with the neighbour of 20 to 29: not mutual
    second[:5] = unit(rng, 5, 16) + 2 * second[:5]  # at a distance of about 1/2
    second[:5] /= np.linalg.norm(second[:5], axis=1, keepdims=True)
    settings = dataclasses.replace(SETTINGS, ratio=0.9, mutual=True, max_distance=0.3)
    query, image = (query._replace(descriptors=side) for side in (first, second))
    found = verify_pair(query, image, KEY, settings)
    expected = [*range(5, 10), *range(20, 30)]
    assert found.matches.tolist() == [[feature, feature] for feature in expected]
    assert found.inlier_mask.all()


def test_ransac_settings_take_effect(scene):
    values = {"model": "homography", "scoring": "msac", "local_optimization": True, "guided": True}
    values |= {"hypotheses": 7, "inlier_threshold": 3.0}
    assert SpatialSettings(**values).ransac == RansacSettings(**values)
    # A similarity cannot shear
    settings = dataclasses.replace(SETTINGS, model="similarity")
    assert 0 < count_inliers(*scene, np.arange(4), KEY, settings)[0] < 40


def test_guided_hypotheses_enlarge_the_candidate_to_the_query(scene, rng):
    # 8 matches of 40 are true, too few for samples of three; the candidate is half as large
    query, _ = scene
    places = query.locations / 2 + 30
    places[8:] = rng.uniform(0, 2000, (32, 2))
    image = features(places[None].astype(np.float32), query.descriptors[None])
    image = image._replace(scales=image.scales / 2)
    settings = dataclasses.replace(SETTINGS, guided=True, min_inliers=4)
    assert 8 <= verify(query, image, np.arange(1), KEY, settings) < 12


def test_one_bit_finds_what_floats_find(scene):
    expected = count_inliers(*scene, np.arange(4), KEY, SETTINGS)
    settings = dataclasses.replace(SETTINGS, one_bit=True, max_distance=0.5)
    found = count_inliers(*scene, np.arange(4), KEY, settings)
    assert found[0] == 40
    assert abs(found - expected).max() <= 8
    packed = [side._replace(descriptors=np.asarray(binarize(side.descriptors))) for side in scene]
    np.testing.assert_array_equal(count_inliers(*packed, np.arange(4), KEY, settings), found)


def test_one_bit_of_any_dimension_matches_as_vectors_of_signs(scene):
    cut = [side._replace(descriptors=side.descriptors[..., :11].copy()) for side in scene]
    cut[0].descriptors[:15, :3] *= -1  # too far of 11 dimensions, and near of 16
    signs = [
        side._replace(descriptors=np.where(side.descriptors > 0, 1, -1) / np.float32(11**0.5))
        for side in cut
    ]
    # Further dimensions of zeros change no distance
    signs = [
        side._replace(descriptors=np.insert(side.descriptors, [11] * 5, 0, axis=-1))
        for side in signs
    ]
    expected = count_inliers(*signs, np.arange(4), KEY, SETTINGS)
    assert expected[0] >= 20
    settings = dataclasses.replace(SETTINGS, one_bit=True, hamming="products")
    found = count_inliers(*cut, np.arange(4), KEY, settings)
    np.testing.assert_array_equal(found, expected)


def test_one_pair_says_what_fits(scene):
    query, candidates = scene
    expected = count_inliers(query, candidates, np.zeros(4, int), KEY, SETTINGS)
    for row, count in enumerate(expected):
        candidate = LocalFeatures(*(part[row] for part in candidates))
        found = verify_pair(query, candidate, KEY, SETTINGS)
        assert found.matches.shape == (len(found.inlier_mask), 2)
        assert candidate.mask[found.matches[:, 1]].all()
        assert found.inlier_mask.sum() == count
        here, there = found.matches[found.inlier_mask].T
        fitted = candidate.locations[there] @ found.transform[:, :2].T + found.transform[:, 2]
        assert np.linalg.norm(fitted - query.locations[here], axis=1).max(initial=0) < 5


@pytest.mark.parametrize(
    "wrong",
    [
        {"max_distance": 0},
        {"inlier_threshold": 0},
        {"hypotheses": 0},
        {"pair_block": 0},
        {"ratio": 2},
        {"model": "spline"},
        {"scoring": "median"},
        {"score": "votes"},
        {"hamming": "lookup"},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        SpatialSettings(**wrong)


def test_no_candidates_and_no_features(scene):
    query, candidates = scene
    none = LocalFeatures(*(part[:0] for part in candidates))
    assert verify(query, none, np.arange(0), KEY, SETTINGS).shape == (0,)
    blind = query._replace(mask=np.zeros(40, bool))
    assert count_inliers(blind, candidates, np.arange(4), KEY, SETTINGS).tolist() == [0] * 4


def test_short_list_passes_over_excluded_images():
    assert short_list(np.array([4, 2, 0, 3, 1]), np.array([2, 3]), 2).tolist() == [4, 0]
    assert short_list(np.array([4, 2]), np.array([], int), 9).tolist() == [4, 2]


def test_rerank_by_hand():
    ranking = np.array([5, 2, 0, 3, 1, 4])
    similarities = np.array([0.9, 0.8, 0.7, 0.7, 0.5, 0.4])
    inliers = np.array([6, 99, 50, 6, 99, 0])  # by image
    # Short list without image 2: 5 (0), 0 (6), 3 (6); images 1 and 4 are below it
    found = rerank(ranking, similarities, inliers, np.array([2]), 3)
    assert found.tolist() == [0, 3, 5, 1, 4, 2]


def test_equal_inliers_are_ordered_by_similarity():
    found = rerank(np.arange(4), [0.1, 0.4, 0.2, 0.4], np.zeros(4, int), np.array([], int), 4)
    assert found.tolist() == [1, 3, 2, 0]


def test_the_combined_score_by_hand():
    inliers = np.array([70, 700, 35, 0])
    similarities = np.array([0.2, 0.1, 0.8, 0.9])
    # 1.2, 1.1 (700 count as 70), 1.3, 0.9
    found = rerank(np.arange(4), similarities, inliers, np.array([], int), 4, "combined")
    assert found.tolist() == [2, 0, 1, 3]
    assert rerank(np.arange(4), similarities, inliers, [], 4).tolist() == [1, 0, 2, 3]


def test_rerank_without_inliers_keeps_the_order(rng):
    ranking = rng.permutation(20)
    similarities = np.sort(rng.random(20))[::-1]
    found = rerank(ranking, similarities, np.zeros(20, int), np.array([], int), 10)
    np.testing.assert_array_equal(found, ranking)


def test_rerank_keeps_every_image_once(rng):
    ranking, inliers = rng.permutation(20), rng.integers(0, 9, 20)
    found = rerank(ranking, np.zeros(20), inliers, rng.permutation(20)[:6], 8)
    assert sorted(found) == list(range(20))
