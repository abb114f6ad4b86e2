import numpy as np
import pytest

from delg_jax.rerank.matching import match
from delg_jax.search.descriptor_similarity import HAMMING, binarize


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


def test_by_hand():
    query, image = on_circle(0, 90, 200), on_circle(10, 80, 5)[None]
    index, valid = match(query, np.ones(3, bool), image, np.ones((1, 3), bool), max_distance=1.0)
    assert index.tolist() == [[2, 1, 1]]
    assert valid.tolist() == [[True, True, False]]


def test_distance_is_strict():
    # Descriptors 60 degrees apart, with an exact cosine of 1/2, lie at distance 1
    query, image = np.array([[1, 0]], np.float32), np.array([[[0.5, 0.75**0.5]]], np.float32)
    masks = np.ones(1, bool), image, np.ones((1, 1), bool)
    assert not match(query, *masks, max_distance=1.0)[1].any()
    assert match(query, *masks, max_distance=1.01)[1].all()


@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.8])
@pytest.mark.parametrize(("queries", "features"), [(1, 1), (9, 5), (5, 12)])
def test_equals_brute_force(rng, queries, features, ratio, mutual):
    query, images = unit(rng, queries, 4), unit(rng, 3, features, 4)
    query_mask, mask = rng.random(queries) < 0.8, rng.random((3, features)) < 0.7
    query_mask[0], mask[:, 0] = True, True
    index, valid = match(query, query_mask, images, mask, 0.9, ratio, mutual)
    found = np.where(valid, index, -1)
    for row, image, present in zip(found, images, mask, strict=True):
        expected = reference(query, query_mask, image, present, 0.9, ratio, mutual)
        np.testing.assert_array_equal(row, expected)


def test_values_on_padding_are_never_used(rng):
    query, images = unit(rng, 4, 6), unit(rng, 2, 5, 6)
    mask = np.array([[True] * 3 + [False] * 2] * 2)
    expected = match(query, np.ones(4, bool), images[:, :3], mask[:, :3], 1.2, 0.9, True)
    images[:, 3:] = 1e6
    found = match(query, np.ones(4, bool), images, mask, 1.2, 0.9, True)
    np.testing.assert_array_equal(found[1], expected[1])
    np.testing.assert_array_equal(found[0], expected[0])


def test_nothing_matches_an_image_or_a_query_without_features(rng):
    query, images = unit(rng, 4, 6), unit(rng, 2, 5, 6)
    mask = np.array([[True] * 5, [False] * 5])
    _, valid = match(query, np.ones(4, bool), images, mask, 2.1)
    assert valid[0].all()
    assert not valid[1].any()
    assert not match(query, np.zeros(4, bool), images, mask, 2.1)[1].any()


def test_duplicates_go_to_the_lower_index_and_fail_the_ratio(rng):
    query = unit(rng, 1, 6)
    images = np.repeat(query[None], 3, axis=1)
    arguments = query, np.ones(1, bool), images, np.ones((1, 3), bool), 1.0
    assert [part.tolist() for part in match(*arguments)] == [[[0]], [[True]]]
    assert not match(*arguments, ratio=0.9)[1].any()


def test_images_do_not_depend_on_each_other(rng):
    query, images = unit(rng, 6, 5), unit(rng, 4, 7, 5)
    together = match(query, np.ones(6, bool), images, np.ones((4, 7), bool), 1.0)
    alone = match(query, np.ones(6, bool), images[2:3], np.ones((1, 7), bool), 1.0)
    np.testing.assert_array_equal(together[0][2], alone[0][0])
    np.testing.assert_array_equal(together[1][2], alone[1][0])


def test_half_floats_match_like_single(rng):
    query, images = unit(rng, 6, 32), unit(rng, 2, 7, 32).astype(np.float16)
    masks = np.ones(6, bool), np.ones((2, 7), bool)
    half = match(query, masks[0], images, masks[1], 1.3)
    single = match(query, masks[0], images.astype(np.float32), masks[1], 1.3)
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
    assert index[0, 2:].tolist() == [5, 4, 3, 2, 1, 0]
    assert valid[0].tolist() == [False] * 2 + [True] * 6
    assert not valid[1].any()


@pytest.mark.parametrize("hamming", HAMMING)
@pytest.mark.parametrize("mutual", [False, True])
@pytest.mark.parametrize("ratio", [0.0, 0.9])
def test_packed_signs_match_like_unit_vectors(rng, ratio, mutual, hamming):
    # A dimension whose square root is exact, so that both ways meet the same ties
    query, images = (
        np.where(unit(rng, *shape) > 0, 0.25, -0.25) for shape in ((9, 16), (3, 7, 16))
    )
    query_mask, mask = rng.random(9) < 0.8, rng.random((3, 7)) < 0.7
    mask[:, 0] = True
    index, valid = match(
        binarize(query), query_mask, binarize(images), mask, 0.9, ratio, mutual, hamming
    )
    found = np.where(valid, index, -1)
    for row, image, present in zip(found, images, mask, strict=True):
        expected = reference(query, query_mask, image, present, 0.9, ratio, mutual)
        np.testing.assert_array_equal(row, expected)


def test_descriptors_of_two_kinds_are_refused(rng):
    query, images = unit(rng, 2, 8), unit(rng, 1, 3, 8)
    with pytest.raises(ValueError, match="`descriptors`.*float32, uint8"):
        match(query, np.ones(2, bool), binarize(images), np.ones((1, 3), bool), 1.0)
