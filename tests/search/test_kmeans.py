import numpy as np
import pytest

from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import kmeans
from tests.search.test_local_search import ragged


def clustered(rng, images=30, features=20, dim=16, clusters=25):
    """Unit vectors [N, K, D] around few directions, with the number of each one's."""
    directions = rng.normal(size=(clusters, dim))
    directions /= np.linalg.norm(directions, axis=1, keepdims=True)
    owner = rng.integers(clusters, size=(images, features))
    vectors = directions[owner] + rng.normal(0, 0.1, (images, features, dim))
    vectors /= np.linalg.norm(vectors, axis=-1, keepdims=True)
    return vectors.astype(np.float32), owner, directions


def reference(vectors, count, rounds, seed):
    """Lloyd's algorithm on the sphere, one loop over everything."""
    found = vectors[np.sort(np.random.default_rng(seed).choice(len(vectors), count, replace=False))]
    for _ in range(rounds):
        own = np.argmax(vectors @ found.T, axis=1)
        sums = np.array([vectors[own == cell].sum(axis=0) for cell in range(count)])
        norms = np.linalg.norm(sums, axis=1, keepdims=True)
        found = np.where(norms > 0, sums / np.maximum(norms, 1e-30), found)
    return found


@pytest.mark.parametrize("rounds", [0, 1, 3])
def test_equals_the_reference(rng, rounds):
    vectors, _, _ = clustered(rng)
    found = kmeans.centres(vectors, np.ones(vectors.shape[:2], bool), 12, rounds, 5)
    assert found.dtype == np.float32
    np.testing.assert_allclose(
        found, reference(vectors.reshape(-1, 16), 12, rounds, 5), rtol=1e-5, atol=1e-6
    )


def test_rounds_bring_centres_nearer_to_the_features(rng):
    vectors, _, _ = clustered(rng)
    present = rng.random(vectors.shape[:2]) < 0.7
    near = []
    for rounds in range(4):
        points = kmeans.centres(vectors, present, 40, rounds, 0)
        np.testing.assert_allclose(np.linalg.norm(points, axis=1), 1.0, rtol=1e-5)
        near.append((vectors[present] @ points.T).max(axis=1).mean())
    assert sorted(near) == near
    assert near[2] > near[0] + 0.02


def test_padding_draws_no_centre_and_moves_none(rng):
    vectors, _, _ = clustered(rng)
    present = np.zeros(vectors.shape[:2], bool)
    present[:, :5] = True
    found = kmeans.centres(vectors, present, 10, 2, 0)
    noisy = np.where(present[..., None], vectors, 7.0).astype(np.float32)
    np.testing.assert_array_equal(kmeans.centres(noisy, present, 10, 2, 0), found)


def test_of_a_large_database_a_part_is_looked_at(rng, monkeypatch):
    vectors, _, _ = clustered(rng)
    present = np.ones(vectors.shape[:2], bool)
    monkeypatch.setattr(kmeans, "_SAMPLED", 10)

    class Rows:
        shape, read = vectors.shape, set()

        def __getitem__(self, rows):
            if isinstance(rows, np.ndarray):
                self.read.update(rows.tolist())
            return vectors[rows]

    assert kmeans.centres(Rows(), present, 8, 2, 0).shape == (8, 16)
    assert 4 <= len(Rows.read) <= 5  # images of 20 features, 80 of which are enough


def test_more_centres_than_features_are_the_features(rng):
    vectors = clustered(rng, images=2, features=3)[0]
    found = kmeans.centres(vectors, np.ones((2, 3), bool), 99, 2, 0)
    np.testing.assert_allclose(found, vectors.reshape(-1, 16), atol=1e-6)


def test_no_features_have_no_centres(rng):
    vectors = clustered(rng, images=2, features=3)[0]
    assert kmeans.centres(vectors, np.zeros((2, 3), bool), 5, 2, 0).shape == (0, 16)
    assert kmeans.centres(vectors[:0], np.zeros((0, 3), bool), 5, 2, 0).shape == (0, 16)


def test_the_first_of_equally_near_centres_is_taken(rng, monkeypatch):
    monkeypatch.setattr(kmeans, "_FEATURES", 3)
    points = rng.normal(size=(4, 6)).astype(np.float32)
    points[2] = points[1]
    features = rng.normal(size=(10, 6)).astype(np.float32)
    expected = np.argmax(features @ points.T, axis=1)
    np.testing.assert_array_equal(kmeans.nearest(features, points), expected)
    assert 2 not in expected


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def grouped(rng, monkeypatch, count, dim=8):
    monkeypatch.setattr(kmeans, "_FLAT", 10)
    return kmeans.grouped(unit(rng, count, dim))


@pytest.mark.parametrize("count", [1, 3, 9])
@pytest.mark.parametrize("words", [9, 200])
def test_the_nearest_are_those_of_all_words(rng, monkeypatch, words, count):
    book = grouped(rng, monkeypatch, words)
    features = unit(rng, 50, 8)
    expected = np.argsort(-(features @ book.centres.T), axis=1, kind="stable")[:, :count]
    # All groups are looked into: 14 of them for 200 words
    assert len(book.groups) == (1 if words == 9 else 14)
    np.testing.assert_array_equal(book.nearest(features, count), expected)


def test_few_groups_miss_few_of_the_nearest(rng, monkeypatch):
    monkeypatch.setattr(kmeans, "_PROBED", 2)
    book = grouped(rng, monkeypatch, 900, 5)
    features = unit(rng, 1000, 5)
    expected = (features @ book.centres.T).argmax(axis=1)
    found = book.nearest(features)[:, 0]
    assert 0.8 < (found == expected).mean() < 1.0
    # A word that is found instead is near, too
    missed = (features * (book.centres[expected] - book.centres[found])).sum(axis=1)
    assert (missed >= 0).all()
    assert missed.max() < 0.3


def test_groups_hold_all_words_once(rng, monkeypatch):
    monkeypatch.setattr(kmeans, "_FLAT", 10)
    centres = unit(rng, 60, 8)
    book = kmeans.grouped(centres)
    np.testing.assert_array_equal(np.sort(book.centres, axis=0), np.sort(centres, axis=0))
    owners = np.repeat(np.arange(len(book.groups)), np.diff(book.offsets))
    np.testing.assert_array_equal((book.centres @ book.groups.T).argmax(axis=1), owners)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_any_number_of_features_at_a_time_gives_the_same(rng, monkeypatch, block):
    book, features = grouped(rng, monkeypatch, 100), unit(rng, 40, 8)
    expected = book.nearest(features, 3)
    monkeypatch.setattr(kmeans, "_WORD_FEATURES_GROUPED", block)
    np.testing.assert_array_equal(book.nearest(features, 3), expected)


def test_more_words_than_there_are_means_all(rng):
    book = kmeans.grouped(unit(rng, 5, 8))
    assert book.nearest(unit(rng, 4, 8), 9).shape == (4, 5)
    assert book.nearest(np.zeros((0, 8), np.float32), 2).shape == (0, 2)


@pytest.mark.parametrize("flat", [10, 4096])
def test_words_are_where_the_features_are(rng, monkeypatch, flat):
    monkeypatch.setattr(kmeans, "_FLAT", flat)
    places = unit(rng, 40, 16)
    noisy = places[rng.integers(0, 40, (90, 20))] + rng.normal(0, 0.02, (90, 20, 16))
    noisy = (noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)).astype(np.float32)
    book = kmeans.learn_words(noisy, np.ones((90, 20), bool), 60, rounds=3)
    assert book.centres.shape == (60, 16)
    np.testing.assert_allclose(np.linalg.norm(book.centres, axis=1), 1.0, atol=1e-5)
    # One word for most places; a place without is k-means' local optimum
    assert ((places @ book.centres.T).max(axis=1) > 0.98).mean() > 0.6
    assert (noisy @ book.centres.T).max(axis=2).mean() > 0.8


def test_words_do_not_depend_on_where_the_features_are(rng):
    descriptors, mask = ragged(rng, 30, 6)
    descriptors = descriptors.astype(np.float16)
    rows = StoredRows(lambda wanted: descriptors[wanted], descriptors.shape, np.float16)
    one, other = kmeans.learn_words(descriptors, mask, 12), kmeans.learn_words(rows, mask, 12)
    np.testing.assert_array_equal(one.centres, other.centres)
    assert not np.array_equal(one.centres, kmeans.learn_words(rows, mask, 12, seed=1).centres)


def test_padding_is_not_learnt(rng):
    descriptors, mask = ragged(rng, 30, 6)
    spoilt = np.where(mask[:, :, None], descriptors, np.nan).astype(np.float32)
    assert np.isfinite(kmeans.learn_words(spoilt, mask, 12).centres).all()


def test_few_features_give_few_words(rng):
    descriptors, mask = ragged(rng, 3, 4)
    assert len(kmeans.learn_words(descriptors, mask, 50)) == mask.sum()
    assert len(kmeans.learn_words(descriptors, np.zeros_like(mask), 50)) == 0
    assert len(kmeans.learn_words(descriptors[:0], mask[:0], 50)) == 0
