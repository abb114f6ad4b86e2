import jax
import numpy as np
import pytest

from delg_jax.search import cann, engines, ivf
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import similarity
from delg_jax.search.lsh_grids import GridSettings
from tests.search.test_ivf import halves

KERNEL = SimilarityKernel("threshold", threshold=0.3)
GRIDS = GridSettings(grids=3, axes=3, approximation=2.0)


@pytest.fixture
def database(rng):
    return halves(rng, 9, 5)


@pytest.fixture
def queries(rng):
    return halves(np.random.default_rng(1), 5, 4)


def searches(database):
    return {
        "exact": engines.exact(*database, KERNEL, 4),
        "cann": engines.cann(cann.build(*database, GRIDS)),
        "ivf": engines.ivf(ivf.build(*database, ivf.IvfSettings(4)), KERNEL, 4),
    }


def test_all_engines_answer_alike(database, queries):
    found = {name: search(*queries) for name, search in searches(database).items()}
    assert tuple(found) == engines.ENGINES
    for similarities in found.values():
        assert (similarities.shape, similarities.dtype) == ((5, 9), np.float32)
        assert (similarities > 0).any()
    np.testing.assert_allclose(found["ivf"], found["exact"], atol=2e-6)


@pytest.mark.parametrize("name", engines.ENGINES)
def test_an_image_is_most_similar_to_itself(database, name):
    mask = np.ones_like(database[1])
    vectors = np.where(database[1][:, :, None], database[0], database[0] / 100)
    search = searches((vectors, mask))[name]
    found = search(vectors, mask)
    assert (found.max(axis=1) <= np.diag(found) + 1e-6).all()


@pytest.mark.parametrize("idf_images", [0, 9])
@pytest.mark.parametrize("query_block", [1, 2, 3, 64])
def test_any_query_block_gives_the_same(database, queries, query_block, idf_images):
    whole = engines.exact(*database, KERNEL, 4, idf_images, 5)
    search = engines.exact(*database, KERNEL, 4, idf_images, query_block)
    np.testing.assert_allclose(search(*queries), whole(*queries), atol=1e-6)
    for found, expected in zip(search.top(*queries, 4), whole.top(*queries, 4), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    index = ivf.build(*database, ivf.IvfSettings(4))
    some, every = (engines.ivf(index, KERNEL, 2, block) for block in (query_block, 5))
    np.testing.assert_allclose(some(*queries), every(*queries), atol=1e-6)


@pytest.mark.parametrize("idf_images", [0, 4])
def test_the_top_is_that_of_all_similarities(database, queries, idf_images):
    search = engines.exact(*database, KERNEL, 2, idf_images, 2)
    everything = search(*queries)
    order = np.argsort(-everything, axis=1, kind="stable")[:, :4]
    values, images = search.top(*queries, 4)
    np.testing.assert_array_equal(images, order)
    np.testing.assert_array_equal(values, np.take_along_axis(everything, order, axis=1))
    assert search.top(*queries, 100)[1].shape == (5, 9)


def test_devices_and_signs_are_passed_on(database, queries):
    packed = [(np.packbits(x > 0, -1), mask) for x, mask in (queries, database)]
    options = {"hamming": "products", "devices": jax.local_devices()[:2]}
    search = engines.exact(*packed[1], KERNEL, 2, 9, **options)
    expected = engines.exact(*packed[1], KERNEL, 2, 9)(*packed[0])
    np.testing.assert_allclose(search(*packed[0]), expected, atol=1e-6)


def test_no_more_than_a_block_of_rows_is_asked_for(database, queries):
    class Rows(np.ndarray):
        def __getitem__(self, key):
            part = np.asarray(super().__getitem__(key))
            assert len(part) <= 2
            return part

    rows = np.repeat(database[0], 3, axis=0).view(Rows), np.repeat(database[1], 3, axis=0)
    search = engines.exact(*rows, KERNEL, 2, devices=jax.local_devices()[:1])
    values, images = search.top(*queries, 3)
    everything = similarity(*queries, *map(np.asarray, rows), KERNEL)
    np.testing.assert_array_equal(images, np.argsort(-everything, kind="stable")[:, :3])
    assert values.shape == (5, 3)


def test_no_queries_and_no_images(database, queries):
    for search in searches(database).values():
        assert search(queries[0][:0], queries[1][:0]).shape == (0, 9)
    empty = engines.exact(database[0][:0], database[1][:0], KERNEL, 4, 3)
    assert empty(*queries).shape == (5, 0)
    assert [side.shape for side in empty.top(*queries, 3)] == [(5, 0)] * 2
