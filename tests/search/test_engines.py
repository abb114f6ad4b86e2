import dataclasses

import jax
import numpy as np
import pytest

from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import asmk, cann, engines, ivf, kmeans, local_search
from delg_jax.search.cann import GridSettings
from delg_jax.search.graph import PairGraph
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import similarity
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
        "cann": engines.CannSearch(cann.build(*database, GRIDS)),
        "ivf": engines.IvfSearch(ivf.build(*database, ivf.IvfSettings(4)), KERNEL, 4),
        "asmk": engines.AsmkSearch(
            asmk.build(*database, asmk.AsmkSettings(4)), asmk.AsmkScoring(4, 0.1)
        ),
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
@pytest.mark.parametrize("query_block", [1, 3, 64])
def test_any_query_block_gives_the_same(database, queries, query_block, idf_images):
    whole = engines.exact(*database, KERNEL, 4, idf_images, 5)
    search = engines.exact(*database, KERNEL, 4, idf_images, query_block)
    np.testing.assert_allclose(search(*queries), whole(*queries), atol=1e-6)
    for found, expected in zip(search.top(*queries, 4), whole.top(*queries, 4), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)
    index = ivf.build(*database, ivf.IvfSettings(4))
    some, every = (engines.IvfSearch(index, KERNEL, 2, block) for block in (query_block, 5))
    np.testing.assert_allclose(some(*queries), every(*queries), atol=1e-6)


@pytest.mark.parametrize("idf_images", [0, 4])
def test_the_top_is_that_of_all_similarities(database, queries, idf_images):
    search = engines.exact(*database, KERNEL, 2, idf_images, 3)
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


@pytest.mark.parametrize("name", engines.ENGINES)
@pytest.mark.parametrize("top", [1, 4, 9, 50])
def test_every_engine_lists_the_first_of_its_similarities(database, queries, name, top):
    search = searches(database)[name]
    similarities, images = search.top(*queries, top)
    expected = search(*queries)
    order = np.argsort(-expected, axis=1, kind="stable")[:, :top]
    np.testing.assert_array_equal(images, order)
    assert (similarities.dtype, images.dtype) == (np.float32, np.int32)
    np.testing.assert_allclose(similarities, np.take_along_axis(expected, order, axis=1), atol=1e-6)


@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_lists_of_nothing_are_empty(database, queries, name):
    bare = searches((database[0][:0], database[1][:0]))[name]
    assert [part.shape for part in bare.top(*queries, 3)] == [(5, 0), (5, 0)]
    some = searches(database)[name]
    assert [len(part) for part in some.top(queries[0][:0], queries[1][:0], 3)] == [0, 0]


@pytest.mark.parametrize("idf_images", [0, 5])
@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_all_images_as_candidates_give_the_exact_similarity(database, queries, name, idf_images):
    exact = engines.exact(*database, KERNEL, 4, idf_images)
    search = engines.CandidateSearch(searches(database)[name], exact, 9)
    np.testing.assert_allclose(search(*queries), exact(*queries), atol=1e-6)
    for found, expected in zip(search.top(*queries, 4), exact.top(*queries, 4), strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_candidates_are_the_first_of_an_engine_in_the_exact_order(database, queries, name):
    first, exact = searches(database)[name], engines.exact(*database, KERNEL, 4, 9)
    search = engines.CandidateSearch(first, exact, 3)
    similarities, images = search.top(*queries, 9)
    _, candidates = first.top(*queries, 3)
    np.testing.assert_array_equal(np.sort(images, axis=1), np.sort(candidates, axis=1))
    every = exact(*queries)
    np.testing.assert_allclose(similarities, np.take_along_axis(every, images, axis=1), atol=1e-6)
    assert (np.diff(similarities, axis=1) <= 0).all()
    found = search(*queries)
    is_candidate = np.zeros(found.shape, bool)
    np.put_along_axis(is_candidate, candidates, True, axis=1)
    np.testing.assert_allclose(found[is_candidate], every[is_candidate], atol=1e-6)
    assert (found[~is_candidate] == -np.inf).all()


@pytest.mark.parametrize("name", engines.ENGINES[1:])
def test_the_images_behind_the_candidates_keep_the_order_of_the_engine(database, queries, name):
    first, exact = searches(database)[name], engines.exact(*database, KERNEL, 4, 9)
    search = engines.CandidateSearch(first, exact, 3, 4)
    similarities, images = search.top(*queries, 9)
    assert images.shape == (5, 7)
    _, listed = first.top(*queries, 7)
    np.testing.assert_array_equal(images[:, 3:], listed[:, 3:])
    alone = engines.CandidateSearch(first, exact, 3).top(*queries, 3)
    np.testing.assert_array_equal(similarities[:, :3], alone[0])
    np.testing.assert_array_equal(images[:, :3], alone[1])
    assert (np.diff(similarities, axis=1) <= 0).all()
    for found, expected in zip(search.top(*queries, 5), (similarities, images), strict=True):
        np.testing.assert_array_equal(found, expected[:, :5])
    by_image = search(*queries)
    np.testing.assert_array_equal(np.take_along_axis(by_image, images, axis=1), similarities)
    assert (by_image > -np.inf).sum() == images.size


def test_estimated_similarities_are_in_proportion_to_the_scores_and_below_the_candidates():
    scores = np.array([[8.0, 6.0, 4.0, 2.0], [8.0, 6.0, 0.0, 0.0], [8.0, 6.0, 4.0, 2.0]])
    exact = np.array([[0.9, 0.8, 0.4, 0.3], [0.9, 0.8, 0.7, 0.6], [0.9, 0.1, 0.4, 0.2]])
    behind = np.array([[2.0, 1.0, 0.0], [0.0, 0.0, 0.0], [1.5, 0.5, 0.0]])
    found = engines.estimate(scores, exact, behind)
    # The ratio of the first is the median of 0.1 and 0.15, of the third that of 0.1 and 0.1
    np.testing.assert_allclose(found, [[0.25, 0.125, 0], [0, 0, 0], [0.1, 0.05, 0]], atol=1e-6)
    assert engines.estimate(scores, exact, behind[:, :0]).shape == (3, 0)


def test_the_idf_of_a_feature_is_that_of_its_words(database, queries):
    codebook = kmeans.grouped(database[0][database[1]][:7].astype(np.float32))
    weights = engines.word_weights(codebook, *database, KERNEL, 4)
    words = codebook.centres[None], np.ones((1, 7), bool)
    expected = local_search.idf_weights(*words, *database, KERNEL)
    np.testing.assert_allclose(weights, expected[0], atol=1e-6)
    assert len(np.unique(weights)) > 1
    found = engines.WordIdf(codebook, weights, 2, 3.0)(*queries)
    assert (found[~queries[1]] == 1).all()
    for query, valid, row in zip(*queries, found, strict=True):
        products = query[valid] @ codebook.centres.T
        two = np.argsort(-products, axis=1, kind="stable")[:, :2]
        np.testing.assert_allclose(row[valid], weights[two].mean(axis=1) ** 3, atol=1e-6)
    none = np.zeros_like(queries[1])
    assert (engines.WordIdf(codebook, weights, 2)(queries[0], none) == 1).all()


def test_the_idf_of_words_weighs_features_in_searches_and_between_images(database, queries):
    codebook = kmeans.grouped(database[0][database[1]][:7].astype(np.float32))
    weights = engines.word_weights(codebook, *database, KERNEL)
    idf = engines.WordIdf(codebook, weights, 1)
    search = dataclasses.replace(engines.exact(*database, KERNEL, 4, 9), idf=idf)
    expected = local_search.similarity(*queries, *database, KERNEL, weights=idf(*queries))
    np.testing.assert_allclose(search(*queries), expected, atol=1e-6)
    expected = local_search.similarity(*database, *database, KERNEL, weights=idf(*database))
    np.testing.assert_allclose(PairGraph(search).dense(np.arange(9))[0], expected, atol=1e-6)


@pytest.mark.parametrize("power", [1.0, 2.5])
def test_weights_are_raised_to_a_power(database, queries, power):
    plain = engines.exact(*database, KERNEL, 4, 5)
    search = engines.exact(*database, KERNEL, 4, 5, idf_power=power)
    np.testing.assert_allclose(search.idf(*queries), plain.idf(*queries) ** power, atol=1e-6)


def test_candidates_are_read_from_disk_in_order(database, queries):
    read = []

    def rows(array):
        def take(wanted):
            read.append(np.asarray(wanted))
            return array[wanted]

        return StoredRows(take, array.shape, array.dtype)

    exact = engines.exact(rows(database[0]), rows(database[1]), KERNEL, 4)
    search = engines.CandidateSearch(searches(database)["ivf"], exact, 4)
    expected = engines.CandidateSearch(
        searches(database)["ivf"], engines.exact(*database, KERNEL, 4), 4
    )
    for found, wanted in zip(search.top(*queries, 4), expected.top(*queries, 4), strict=True):
        np.testing.assert_array_equal(found, wanted)
    assert all(len(wanted) == 4 and (np.diff(wanted) > 0).all() for wanted in read)
