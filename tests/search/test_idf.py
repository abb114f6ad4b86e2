import numpy as np
import pytest

from delg_jax.search import idf
from delg_jax.search.engines import exact
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import similarity
from tests.search.test_local_search import ragged

KERNEL = SimilarityKernel("threshold", threshold=0.3)


def reference(queries, query_mask, sample, sample_mask, threshold):
    result = np.ones(query_mask.shape)
    for place in np.argwhere(query_mask):
        feature = queries[tuple(place)].astype(float)
        has = [
            bool((image[present] @ feature > threshold).any())
            for image, present in zip(sample, sample_mask, strict=True)
        ]
        result[tuple(place)] = np.log(len(has) / max(sum(has), 1)) / np.log(len(has))
    return result


def test_by_hand():
    feature = np.eye(4, dtype=np.float32)
    sample = feature[[[0, 1], [0, 2], [0, 1], [0, 0]]]
    found = idf.weights(feature[None], np.ones((1, 4), bool), sample, np.ones((4, 2), bool), KERNEL)
    # In all four, in two, in one, in none of the images
    np.testing.assert_allclose(found, [[0, 0.5, 1, 1]], atol=1e-6)


@pytest.mark.parametrize(("images", "features", "block"), [(2, 5, 1), (7, 3, 3), (9, 6, 32)])
def test_equals_the_definition(rng, images, features, block):
    queries, sample = ragged(rng, 3, 4), ragged(rng, images, features)
    found = idf.weights(*queries, *sample, KERNEL, block)
    mask = queries[1]
    np.testing.assert_allclose(found[mask], reference(*queries, *sample, 0.3)[mask], atol=1e-6)


@pytest.mark.parametrize("images", [0, 1])
def test_without_a_sample_all_weigh_the_same(rng, images):
    queries, sample = ragged(rng, 2, 4), ragged(rng, 1, 3)
    found = idf.weights(*queries, sample[0][:images], sample[1][:images], KERNEL)
    np.testing.assert_array_equal(found, np.ones((2, 4)))


def test_the_engine_weighs_votes(rng):
    queries, database = ragged(rng, 2, 5), ragged(rng, 9, 4)
    weights = idf.weights(*queries, *database, KERNEL)
    found = exact(*database, KERNEL, 4, 9)(*queries)
    wanted = np.zeros((2, 9))
    for row, (query, valid) in enumerate(zip(*queries, strict=True)):
        for number in np.flatnonzero(valid):
            alone = similarity(query[None, number : number + 1], [[True]], *database, KERNEL)
            wanted[row] += weights[row, number] * alone[0]
        wanted[row] /= valid.sum()
    np.testing.assert_allclose(found, wanted, atol=1e-6)


def test_the_order_of_the_sample_does_not_matter(rng):
    queries, sample = ragged(rng, 2, 5), ragged(rng, 8, 4)
    order = rng.permutation(8)
    found = idf.weights(*queries, sample[0][order], sample[1][order], KERNEL, 3)
    np.testing.assert_array_equal(found, idf.weights(*queries, *sample, KERNEL, 8))


def test_a_smaller_sample_is_spread_over_the_database(rng):
    queries, database = ragged(rng, 2, 5), ragged(rng, 9, 4)
    weights = idf.weights(*queries, *(side[[0, 4, 8]] for side in database), KERNEL)
    wanted = similarity(*queries, *database, KERNEL, weights=weights)
    np.testing.assert_allclose(exact(*database, KERNEL, 4, 3)(*queries), wanted, atol=1e-6)


def test_an_empty_database(rng):
    queries, database = ragged(rng, 2, 5), ragged(rng, 1, 4)
    assert exact(database[0][:0], database[1][:0], KERNEL, 4, 3)(*queries).shape == (2, 0)
