import numpy as np
import pytest

from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.stored_rows import StoredRows
from delg_jax.search import local_search
from delg_jax.search.engines import exact
from delg_jax.search.graph_building import global_searches, local_searches, rows_from
from delg_jax.search.kernels import SimilarityKernel

KERNEL = SimilarityKernel("threshold", threshold=0.2)


def engine(features):
    return exact(features.descriptors, features.mask, KERNEL, 3)


def best(similarities, first, count):
    order = first + np.argsort(-similarities[:, first:], axis=1, kind="stable")[:, :count]
    return np.take_along_axis(similarities, order, axis=1), order


def on_disk(array):
    return StoredRows(lambda wanted: array[wanted], array.shape, array.dtype)


@pytest.fixture
def database(rng):
    descriptors = rng.normal(size=(11, 4, 6)).astype(np.float32)
    descriptors /= np.linalg.norm(descriptors, axis=-1, keepdims=True)
    mask = rng.random((11, 4)) < 0.8
    mask[:, 0] = True
    mask[4] = False
    zeros = np.zeros((11, 4), np.float32)
    return LocalFeatures(np.zeros((11, 4, 2), np.float32), zeros, zeros, descriptors, mask)


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(
    ("first", "count", "block"), [(0, 5, 4), (0, 99, 32), (7, 3, 4), (8, 9, 2)]
)
def test_local_lists_are_the_best_of_the_local_search(database, first, count, block, disk):
    features = (database.descriptors, database.mask)
    expected = best(local_search.similarity(*features, *features, KERNEL), first, count)
    if disk:
        database = LocalFeatures(*map(on_disk, database))
    search = local_searches(database, engine, count, block)(first)
    for images in (range(0, min(block, 11)), range(8, 8 + min(block, 3))):
        similarities, indices = search(images)
        np.testing.assert_allclose(similarities, expected[0][images.start : images.stop], atol=1e-6)
        np.testing.assert_array_equal(indices, expected[1][images.start : images.stop])
        assert indices.dtype == np.int32


def test_of_equal_images_the_lower_index_comes_first(database):
    same = LocalFeatures(*(np.ones_like(field) for field in database))
    assert local_searches(same, engine, 3, 2)(0)(range(4, 6))[1].tolist() == [[0, 1, 2]] * 2


def test_an_image_without_features_is_like_nothing(database):
    similarities, _ = local_searches(database, engine, 11, 11)(0)(range(0, 11))
    assert (similarities[4] == 0).all()


@pytest.mark.parametrize("disk", [False, True])
@pytest.mark.parametrize(("first", "count"), [(0, 4), (7, 99)])
def test_global_lists_are_the_best_cosines(rng, first, count, disk):
    descriptors = rng.normal(size=(11, 5)).astype(np.float32)
    expected = best(descriptors @ descriptors.T, first, count)
    rows = on_disk(descriptors) if disk else descriptors
    similarities, indices = global_searches(rows, count, 4, 3)(first)(range(8, 11))
    np.testing.assert_allclose(similarities, expected[0][8:11], atol=1e-5)
    np.testing.assert_array_equal(indices, expected[1][8:11])


def test_rows_from_one_on_stay_on_disk(rng):
    array = rng.random((6, 2))
    rows = rows_from(on_disk(array), 2)
    assert rows.shape == (4, 2)
    np.testing.assert_array_equal(rows[1:9], array[3:])
    np.testing.assert_array_equal(rows[np.array([3, 0])], array[[5, 2]])
