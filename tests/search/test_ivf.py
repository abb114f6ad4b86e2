import numpy as np
import pytest

from delg_jax.search import ivf
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.local_search import similarity as exact
from tests.search.test_local_search import IDENTITY, KERNELS, ragged

SETTINGS = ivf.IvfSettings(5, seed=1)
ARRAYS = ("centres", "descriptors", "images", "offsets")


def halves(rng, *shape):
    """Ragged images whose descriptors half precision holds exactly."""
    descriptors, mask = ragged(rng, *shape)
    return descriptors.astype(np.float16).astype(np.float32), mask


def reference(index, queries, query_mask, k, probes, idf=False):
    """One loop over everything."""
    result = np.zeros((len(queries), index.count))
    vectors = index.descriptors.astype(np.float64)
    for q, (query, valid) in enumerate(zip(queries, query_mask, strict=True)):
        for feature in query[valid].astype(np.float64):
            best = {}
            for cell in np.argsort(-(index.centres @ feature), kind="stable")[:probes]:
                for entry in range(*index.offsets[cell : cell + 2]):
                    image = int(index.images[entry])
                    best[image] = max(best.get(image, -np.inf), vectors[entry] @ feature)
            votes = {image: k(np.float64(cosine)) for image, cosine in best.items()}
            frequency = max(sum(vote > 0 for vote in votes.values()), 1)
            weight = np.log(index.count / frequency) / np.log(index.count) if idf else 1.0
            for image, vote in votes.items():
                result[q, image] += weight * vote
        result[q] /= max(valid.sum(), 1)
    return result


def test_every_feature_is_in_the_cell_of_its_nearest_centre(rng):
    descriptors, mask = halves(rng, 6, 7)
    index = ivf.build(descriptors, mask, SETTINGS)
    vectors, owners = descriptors[mask], np.nonzero(mask)[0]
    assert index.centres.shape == (5, 8)
    nearest = np.argmax(vectors @ index.centres.T, axis=1)
    order = np.argsort(nearest, kind="stable")
    np.testing.assert_array_equal(index.descriptors, vectors[order].astype(np.float16))
    np.testing.assert_array_equal(index.images, owners[order])
    np.testing.assert_array_equal(np.diff(index.offsets), np.bincount(nearest, minlength=5))


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("name", list(KERNELS))
@pytest.mark.parametrize("probes", [1, 2, 5])
def test_equals_the_reference(rng, name, probes, idf):
    kernel, k = KERNELS[name]
    database, queries = halves(rng, 9, 6), halves(rng, 3, 4)
    index = ivf.build(*database, SETTINGS)
    found = ivf.similarity(index, *queries, kernel, probes, idf)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, reference(index, *queries, k, probes, idf), atol=2e-6)


@pytest.mark.parametrize("name", list(KERNELS))
@pytest.mark.parametrize("probes", [5, 99])
def test_all_cells_give_the_exact_similarity(rng, name, probes):
    database, queries = halves(rng, 9, 6), halves(rng, 3, 4)
    index = ivf.build(*database, SETTINGS)
    found = ivf.similarity(index, *queries, KERNELS[name][0], probes)
    np.testing.assert_allclose(found, exact(*queries, *database, KERNELS[name][0]), atol=2e-6)


@pytest.mark.parametrize("idf", [False, True])
@pytest.mark.parametrize("products", [1, 30, 60])
def test_any_amount_of_memory_gives_the_same(rng, monkeypatch, products, idf):
    database, queries = halves(rng, 9, 6), halves(rng, 3, 4)
    index = ivf.build(*database, SETTINGS)
    expected = ivf.similarity(index, *queries, KERNELS["power"][0], 2, idf)
    monkeypatch.setattr(ivf, "_PRODUCTS", products)
    found = ivf.similarity(index, *queries, KERNELS["power"][0], 2, idf)
    np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.parametrize("block", [1, 4, 99])
def test_any_block_gives_the_same_index(rng, block):
    database = halves(rng, 9, 5)
    one, other = ivf.build(*database, SETTINGS), ivf.build(*database, SETTINGS, block)
    for name in ARRAYS:
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_nothing_finds_nothing(rng):
    (database, mask), (queries, query_mask) = halves(rng, 5, 4), halves(rng, 2, 3)
    index = ivf.build(database, mask, SETTINGS)
    none = np.zeros_like(query_mask)
    assert (ivf.similarity(index, queries, none, IDENTITY, 3) == 0).all()
    bare = ivf.build(database, np.zeros_like(mask), SETTINGS)
    assert (ivf.similarity(bare, queries, query_mask, IDENTITY, 3) == 0).all()
    empty = ivf.build(database[:0], mask[:0], SETTINGS)
    assert ivf.similarity(empty, queries, query_mask, IDENTITY, 3).shape == (2, 0)


def test_wrong_arguments_are_named(rng):
    index = ivf.build(*halves(rng, 5, 4), SETTINGS)
    other = halves(rng, 2, 3, 6)
    with pytest.raises(ValueError, match=r"`queries` \(D=6\).*\(D=8\)"):
        ivf.similarity(index, *other, IDENTITY, 3)
    with pytest.raises(ValueError, match="`probes`"):
        ivf.similarity(index, *halves(rng, 2, 3), IDENTITY, 0)
    for wrong in ({"count": 0}, {"rounds": -1}, {"seed": -1}):
        with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
            ivf.IvfSettings(**wrong)


@pytest.mark.parametrize("ranked", [2, 5])
def test_a_sample_of_centres_gives_about_the_number_of_probes(rng, monkeypatch, ranked):
    database, queries = halves(rng, 40, 30), halves(rng, 6, 30)
    index = ivf.build(*database, ivf.IvfSettings(200))
    monkeypatch.setattr(ivf, "_RANKED", ranked)
    features = queries[0][queries[1]]
    rows, edges = ivf._probing_features(features, index.centres, 40)
    cosines = features @ index.centres.T
    looked = np.zeros_like(cosines, dtype=bool)
    for cell in range(200):
        looked[rows[edges[cell] : edges[cell + 1]], cell] = True
    assert len(rows) == looked.sum()
    assert 20 < looked.sum(axis=1).mean() < 60
    # Whatever their number, they are the nearest
    worst = np.where(looked, cosines, np.inf).min(axis=1)
    assert (worst > np.where(looked, -np.inf, cosines).max(axis=1)).all()
    kernel = KERNELS["power"][0]
    found = ivf.similarity(index, *queries, kernel, 200)
    np.testing.assert_allclose(found, exact(*queries, *database, kernel), atol=2e-6)


def test_few_cells_find_the_images_of_a_place(rng):
    """Images of 12 places, whose features are those of the place with a little noise."""
    places = rng.normal(size=(12, 8, 16))
    noisy = places[np.arange(60) % 12] + rng.normal(0, 0.2, (60, 8, 16))
    noisy = (noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)).astype(np.float32)
    index = ivf.build(noisy, np.ones((60, 8), bool), ivf.IvfSettings(48))
    kernel = SimilarityKernel("threshold", threshold=0.7)
    found = ivf.similarity(index, noisy[:12], np.ones((12, 8), bool), kernel, 4)
    best = np.argsort(-found, axis=1, kind="stable")[:, :5]
    assert (best % 12 == np.arange(12)[:, None]).mean() > 0.9
