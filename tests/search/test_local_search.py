import jax
import numpy as np
import pytest

from delg_jax.features.storage import encodings
from delg_jax.search import local_search
from delg_jax.search.batching import read_ahead
from delg_jax.search.descriptor_similarity import HAMMING
from delg_jax.search.engines import exact
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import best, similarity
from tests.search.test_descriptor_similarity import vectors_of

IDENTITY = SimilarityKernel("identity")
KERNELS = {
    "identity": (IDENTITY, lambda u: u),
    "threshold": (SimilarityKernel("threshold", threshold=0.3), lambda u: u * (u > 0.3)),
    "power": (SimilarityKernel("power", 0.1, 3.0), lambda u: np.abs(u) ** 3 * (u > 0.1)),
}


# Tests that are not about a shape share this one, because each shape compiles: three queries of
# five features; images of four, padded to a block for each device
QUERIES, FEATURES = (3, 5), 4


def ragged(rng, images, features, dimension=8):
    """Descriptors and a mask with holes, and rubbish where the mask is False."""
    descriptors = rng.normal(size=(images, features, dimension)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    mask = rng.random((images, features)) < 0.7
    descriptors[~mask] *= 100
    return descriptors, mask


def reference(queries, query_mask, database, mask, k):
    result = np.zeros((len(queries), len(database)))
    for i, (query, valid) in enumerate(zip(queries.astype(float), query_mask, strict=True)):
        for j, (image, present) in enumerate(zip(database.astype(float), mask, strict=True)):
            if valid.any() and present.any():
                cosines = query[valid] @ image[present].T
                result[i, j] = k(cosines.max(axis=1)).mean()
    return result


def padded(vectors, images, features):
    """Descriptors of the shared shape with these first, and their mask."""
    rest = [
        (0, size - given) for size, given in zip((images, features), vectors.shape, strict=False)
    ]
    mask = np.pad(np.ones(vectors.shape[:2], bool), rest)
    return np.pad(vectors, (*rest, (0, 8 - vectors.shape[2]))), mask


def test_by_hand():
    queries = np.array([[[1, 0], [0, 1]]], np.float32)
    database = np.array([[[1, 0], [0.6, 0.8]], [[-1, 0], [0, -1]]], np.float32)
    found = similarity(*padded(queries, *QUERIES), *padded(database, 2, FEATURES), IDENTITY)
    np.testing.assert_allclose(found, [[(1 + 0.8) / 2, 0], [0, 0], [0, 0]], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "shape", "cached"),
    [
        # Blocks of one, of a few, of all images
        ("threshold", (7, 4), 1),
        ("power", (7, 4), 12**2),
        ("identity", (12, 3), 12**2),
        ("threshold", (5, 9), 2**22),
        ("power", (1, 5), 2**22),
        ("identity", (1, 1), 1),
    ],
)
def test_images_among_themselves_equal_the_definition(rng, name, shape, cached, monkeypatch):
    monkeypatch.setattr(local_search, "_CACHED_PRODUCTS", cached)
    kernel, k = KERNELS[name]
    images, mask = ragged(rng, *shape)
    mask[0] = False
    found = local_search.among(images, mask, kernel)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(images, mask, images, mask, k), atol=2e-6)
    order = rng.permutation(len(mask))
    moved = local_search.among(images[order], mask[order], kernel)
    np.testing.assert_allclose(moved, found[np.ix_(order, order)], atol=2e-6)


@pytest.mark.parametrize(
    ("encoding", "hamming"),
    [("float16", HAMMING[0]), ("int8", HAMMING[0]), *(("sign", name) for name in HAMMING)],
)
def test_images_among_themselves_equal_a_search_of_each(rng, encoding, hamming, monkeypatch):
    monkeypatch.setattr(local_search, "_CACHED_PRODUCTS", 10**2)
    images, mask = ragged(rng, 7, 4)
    codes = encodings.encode(np.where(mask[..., None], images, 0), encoding).values
    weights = rng.random(mask.shape).astype(np.float32)
    kernel = KERNELS["threshold"][0]
    found = local_search.among(codes, mask, kernel, weights, hamming)
    expected = similarity(codes, mask, codes, mask, kernel, weights=weights, hamming=hamming)
    np.testing.assert_allclose(found, expected, atol=2e-6)
    assert local_search.among(codes[:0], mask[:0], kernel).shape == (0, 0)
    assert (local_search.among(codes[:, :0], mask[:, :0], kernel) == np.zeros((7, 7))).all()


@pytest.mark.parametrize(
    ("name", "query_shape", "database_shape", "block"),
    [
        *((name, QUERIES, (7, FEATURES), 3) for name in KERNELS),
        ("identity", (1, 1), (1, 1), 8),
        ("identity", (2, 9), (5, 13), 1),
        ("identity", (4, 2), (6, 3), 6),
    ],
)
def test_equals_the_definition(rng, name, query_shape, database_shape, block):
    kernel, k = KERNELS[name]
    queries, database = ragged(rng, *query_shape), ragged(rng, *database_shape)
    found = similarity(*queries, *database, kernel, block)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(*queries, *database, k), atol=2e-6)


@pytest.mark.parametrize("block", [1, 5, 64])
def test_any_block_gives_the_same(rng, block):
    queries, database = ragged(rng, *QUERIES), ragged(rng, 11, FEATURES)
    whole = similarity(*queries, *database, KERNELS["power"][0], 11)
    found = similarity(*queries, *database, KERNELS["power"][0], block)
    np.testing.assert_allclose(found, whole, atol=1e-6)


@pytest.mark.parametrize("products", [1, 40, 60, 10**6])
def test_a_block_is_smaller_where_its_products_would_leave_the_cache(rng, monkeypatch, products):
    queries, database = ragged(rng, *QUERIES), ragged(rng, 7, FEATURES)
    expected = similarity(*queries, *database, IDENTITY, 64)
    blocks = []

    def watched(arrays, block):
        blocks.append(block)
        return read_ahead(arrays, block)

    monkeypatch.setattr(local_search, "_CACHED_PRODUCTS", products)
    monkeypatch.setattr(local_search, "read_ahead", watched)
    found = similarity(*queries, *database, IDENTITY, 64, devices=jax.devices()[:1])
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert blocks == [min(max(products // (5 * 4), 1), 7)]


def test_images_and_queries_without_features_give_zero(rng):
    (queries, query_mask), (database, mask) = ragged(rng, *QUERIES), ragged(rng, 5, FEATURES)
    query_mask[:, 0], mask[:, 0] = True, True
    query_mask[1], mask[2] = False, False
    found = similarity(queries, query_mask, database, mask, IDENTITY, 2)
    assert (found[1] == 0).all()
    assert (found[:, 2] == 0).all()
    assert (found[[0, 0, 2], [0, 4, 3]] != 0).all()


def test_all_negative_cosines_stay_negative_beside_padding():
    one = np.ones((1, 1, 1), np.float32)
    found = similarity(*padded(one, *QUERIES), *padded(-one, 1, FEATURES), IDENTITY)
    assert found.tolist() == [[-1], [0], [0]]


def test_more_copies_of_a_feature_in_the_image_change_nothing(rng):
    queries, (database, mask) = ragged(rng, *QUERIES), ragged(rng, 4, FEATURES)
    mask[:, 2:] = False
    twice = [np.concatenate([side[:, :2], side[:, :2]], axis=1) for side in (database, mask)]
    once = similarity(*queries, database, mask, IDENTITY)
    np.testing.assert_allclose(similarity(*queries, *twice, IDENTITY), once, atol=1e-6)


def test_order_of_features_changes_nothing(rng):
    (queries, query_mask), (database, mask) = ragged(rng, *QUERIES), ragged(rng, 4, FEATURES)
    first, second = rng.permutation(5), rng.permutation(FEATURES)
    shuffled = similarity(
        queries[:, first], query_mask[:, first], database[:, second], mask[:, second], IDENTITY
    )
    expected = similarity(queries, query_mask, database, mask, IDENTITY)
    np.testing.assert_allclose(shuffled, expected, atol=1e-6)


def test_half_floats_are_computed_in_single(rng):
    queries, (database, mask) = ragged(rng, 2, 30, 64), ragged(rng, 4, 6, 64)
    half = np.where(mask[:, :, None], database, 0).astype(np.float16)
    expected = reference(*queries, half, mask, lambda u: u)
    np.testing.assert_allclose(similarity(*queries, half, mask, IDENTITY), expected, atol=1e-6)


def test_empty_database(rng):
    queries, (database, mask) = ragged(rng, 2, 3), ragged(rng, 4, 6)
    assert similarity(*queries, database[:0], mask[:0], IDENTITY).shape == (2, 0)


def test_different_dimensions_are_named(rng):
    with pytest.raises(ValueError, match=r"`database` \(D=5\).*`queries` \(D=8\)"):
        similarity(*ragged(rng, 1, 2), *ragged(rng, 1, 2, 5), IDENTITY)


@pytest.mark.parametrize("encoding", encodings.ENCODINGS)
def test_codes_of_the_store_are_searched_like_their_vectors(rng, encoding):
    (queries, query_mask), (database, mask) = ragged(rng, *QUERIES), ragged(rng, 7, FEATURES)
    sides = [np.where(m[:, :, None], x, 0) for x, m in ((queries, query_mask), (database, mask))]
    codes = [encodings.encode(side, encoding) for side in sides]
    decoded = [vectors_of(side, encoding) for side in codes]
    expected = reference(decoded[0], query_mask, decoded[1], mask, KERNELS["power"][1])
    found = similarity(
        codes[0].values, query_mask, codes[1].values, mask, KERNELS["power"][0], block=2
    )
    np.testing.assert_allclose(found, expected, atol=2e-6)


@pytest.mark.parametrize("hamming", HAMMING)
def test_both_ways_to_compare_signs_give_the_same(rng, hamming):
    (queries, query_mask), (database, mask) = ragged(rng, 2, 6, 40), ragged(rng, 5, 5, 40)
    sides = np.packbits(queries > 0, -1), query_mask, np.packbits(database > 0, -1), mask
    found = similarity(*sides, IDENTITY, hamming=hamming)
    np.testing.assert_array_equal(found, similarity(*sides, IDENTITY))


@pytest.mark.parametrize(("images", "block"), [(1, 4), (11, 1), (50, 3)])
def test_all_devices_give_what_one_gives(rng, images, block):
    queries, database = ragged(rng, *QUERIES), ragged(rng, images, FEATURES)
    weights = rng.random(QUERIES)
    arguments = *queries, *database, KERNELS["power"][0], block, weights
    one = similarity(*arguments, devices=jax.local_devices()[:1])
    for count in (3, 8):
        found = similarity(*arguments, devices=jax.local_devices()[:count])
        np.testing.assert_allclose(found, one, rtol=0, atol=1e-6)


def test_blocks_of_the_same_size_on_any_devices_are_the_same_to_the_last_bit(rng):
    arguments = *ragged(rng, *QUERIES), *ragged(rng, 24, FEATURES), KERNELS["power"][0], 3
    one = similarity(*arguments, devices=jax.local_devices()[:1])
    np.testing.assert_array_equal(similarity(*arguments), one)


@pytest.mark.parametrize(
    ("devices", "top", "block"), [(1, 1, 1), (1, 4, 5), (1, 40, 5), (8, 13, 1), (8, 4, 32)]
)
def test_the_best_are_those_of_all(rng, top, block, devices):
    arguments = *ragged(rng, *QUERIES), *ragged(rng, 13, FEATURES), KERNELS["threshold"][0]
    chosen = jax.local_devices()[:devices]
    everything = similarity(*arguments, block, devices=chosen)
    order = np.argsort(-everything, axis=1, kind="stable")[:, :top]
    values, images = best(*arguments, top, block, devices=chosen)
    assert (values.dtype, images.dtype) == (np.float32, np.int32)
    np.testing.assert_array_equal(images, order)
    np.testing.assert_array_equal(values, np.take_along_axis(everything, order, axis=1))


def test_equals_in_other_blocks_are_listed_by_index(rng):
    (queries, query_mask), (database, mask) = ragged(rng, *QUERIES), ragged(rng, 1, FEATURES)
    mask[:] = True
    copies = np.repeat(database, 20, axis=0), np.repeat(mask, 20, axis=0)
    for block in (1, 3, 64):
        _, images = best(queries, query_mask, *copies, IDENTITY, 9, block)
        assert images.tolist() == [list(range(9))] * 3


def test_the_best_of_nothing_are_none(rng):
    queries, (database, mask) = ragged(rng, 2, 3), ragged(rng, 4, 6)
    assert best(*queries, database[:0], mask[:0], IDENTITY, 5)[1].shape == (2, 0)
    with pytest.raises(ValueError, match=r"`top` \(=0\)"):
        best(*queries, database, mask, IDENTITY, 0)


def test_the_best_weigh_like_all(rng):
    arguments = *ragged(rng, *QUERIES), *ragged(rng, 7, FEATURES), IDENTITY
    weights = rng.random(QUERIES)
    values, _ = best(*arguments, 7, weights=weights)
    expected = np.sort(similarity(*arguments, weights=weights))[:, ::-1]
    np.testing.assert_allclose(values, expected, atol=1e-6)


KERNEL = SimilarityKernel("threshold", threshold=0.3)


def reference_of_idf(queries, query_mask, sample, sample_mask, threshold):
    result = np.ones(query_mask.shape)
    for place in np.argwhere(query_mask):
        feature = queries[tuple(place)].astype(float)
        has = [
            bool((image[present] @ feature > threshold).any())
            for image, present in zip(sample, sample_mask, strict=True)
        ]
        result[tuple(place)] = np.log(len(has) / max(sum(has), 1)) / np.log(len(has))
    return result


def test_idf_by_hand():
    feature = np.eye(4, dtype=np.float32)
    sample = feature[[[0, 1], [0, 2], [0, 1], [0, 0]]]
    found = local_search.idf_weights(
        *padded(feature[None], *QUERIES), *padded(sample, 4, FEATURES), KERNEL
    )
    # In all four, in two, in one, in none of the images
    np.testing.assert_allclose(found[:1, :4], [[0, 0.5, 1, 1]], atol=1e-6)


@pytest.mark.parametrize(("images", "block"), [(2, 1), (7, 3), (9, 32)])
def test_idf_equals_the_definition(rng, images, block):
    queries, sample = ragged(rng, *QUERIES), ragged(rng, images, FEATURES)
    found = local_search.idf_weights(*queries, *sample, KERNEL, block)
    mask = queries[1]
    np.testing.assert_allclose(
        found[mask], reference_of_idf(*queries, *sample, 0.3)[mask], atol=1e-6
    )


@pytest.mark.parametrize("images", [0, 1])
def test_without_a_sample_all_weigh_the_same(rng, images):
    queries, sample = ragged(rng, 2, 4), ragged(rng, 1, 3)
    found = local_search.idf_weights(*queries, sample[0][:images], sample[1][:images], KERNEL)
    np.testing.assert_array_equal(found, np.ones((2, 4)))


def test_the_engine_weighs_votes(rng):
    (queries, valid), database = ragged(rng, *QUERIES), ragged(rng, 9, FEATURES)
    weights = local_search.idf_weights(queries, valid, *database, KERNEL)
    found = exact(*database, KERNEL, 4, 9)(queries, valid)
    wanted = np.zeros((3, 9))
    for number, alone in enumerate(np.eye(5, dtype=bool)):
        votes = similarity(queries, valid & alone, *database, KERNEL)  # of one feature each
        wanted += weights[:, number, None] * votes
    wanted /= valid.sum(axis=1, keepdims=True)
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_order_of_the_sample_does_not_matter(rng):
    queries, sample = ragged(rng, *QUERIES), ragged(rng, 9, FEATURES)
    order = rng.permutation(9)
    found = local_search.idf_weights(*queries, sample[0][order], sample[1][order], KERNEL, 3)
    np.testing.assert_array_equal(found, local_search.idf_weights(*queries, *sample, KERNEL, 9))


def test_a_smaller_sample_is_spread_over_the_database(rng):
    queries, database = ragged(rng, *QUERIES), ragged(rng, 9, FEATURES)
    weights = local_search.idf_weights(*queries, *(side[[0, 4, 8]] for side in database), KERNEL)
    wanted = similarity(*queries, *database, KERNEL, weights=weights)
    np.testing.assert_allclose(exact(*database, KERNEL, 4, 3)(*queries), wanted, atol=1e-6)


def test_an_empty_database(rng):
    queries, database = ragged(rng, 2, 5), ragged(rng, 1, 4)
    assert exact(database[0][:0], database[1][:0], KERNEL, 4, 3)(*queries).shape == (2, 0)
