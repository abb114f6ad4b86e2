import numpy as np
import pytest

from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import codebook
from tests.search.test_local_search import ragged


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def grouped(rng, monkeypatch, count, dim=8):
    monkeypatch.setattr(codebook, "_FLAT", 10)
    return codebook.grouped(unit(rng, count, dim))


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
    monkeypatch.setattr(codebook, "_PROBED", 2)
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
    monkeypatch.setattr(codebook, "_FLAT", 10)
    centres = unit(rng, 60, 8)
    book = codebook.grouped(centres)
    np.testing.assert_array_equal(np.sort(book.centres, axis=0), np.sort(centres, axis=0))
    owners = np.repeat(np.arange(len(book.groups)), np.diff(book.offsets))
    np.testing.assert_array_equal((book.centres @ book.groups.T).argmax(axis=1), owners)


@pytest.mark.parametrize("block", [1, 7, 1000])
def test_any_number_of_features_at_a_time_gives_the_same(rng, monkeypatch, block):
    book, features = grouped(rng, monkeypatch, 100), unit(rng, 40, 8)
    expected = book.nearest(features, 3)
    monkeypatch.setattr(codebook, "_FEATURES_GROUPED", block)
    np.testing.assert_array_equal(book.nearest(features, 3), expected)


def test_more_words_than_there_are_means_all(rng):
    book = codebook.grouped(unit(rng, 5, 8))
    assert book.nearest(unit(rng, 4, 8), 9).shape == (4, 5)
    assert book.nearest(np.zeros((0, 8), np.float32), 2).shape == (0, 2)


@pytest.mark.parametrize("flat", [10, 4096])
def test_words_are_where_the_features_are(rng, monkeypatch, flat):
    monkeypatch.setattr(codebook, "_FLAT", flat)
    places = unit(rng, 40, 16)
    noisy = places[rng.integers(0, 40, (90, 20))] + rng.normal(0, 0.02, (90, 20, 16))
    noisy = (noisy / np.linalg.norm(noisy, axis=-1, keepdims=True)).astype(np.float32)
    book = codebook.learn(noisy, np.ones((90, 20), bool), 60, rounds=3)
    assert book.centres.shape == (60, 16)
    np.testing.assert_allclose(np.linalg.norm(book.centres, axis=1), 1.0, atol=1e-5)
    # One word for most places; a place without is k-means' local optimum
    assert ((places @ book.centres.T).max(axis=1) > 0.98).mean() > 0.6
    assert (noisy @ book.centres.T).max(axis=2).mean() > 0.8


def test_words_do_not_depend_on_where_the_features_are(rng):
    descriptors, mask = ragged(rng, 30, 6)
    descriptors = descriptors.astype(np.float16)
    rows = StoredRows(lambda wanted: descriptors[wanted], descriptors.shape, np.float16)
    one, other = codebook.learn(descriptors, mask, 12), codebook.learn(rows, mask, 12)
    np.testing.assert_array_equal(one.centres, other.centres)
    assert not np.array_equal(one.centres, codebook.learn(rows, mask, 12, seed=1).centres)


def test_padding_is_not_learnt(rng):
    descriptors, mask = ragged(rng, 30, 6)
    spoilt = np.where(mask[:, :, None], descriptors, np.nan).astype(np.float32)
    assert np.isfinite(codebook.learn(spoilt, mask, 12).centres).all()


def test_few_features_give_few_words(rng):
    descriptors, mask = ragged(rng, 3, 4)
    assert len(codebook.learn(descriptors, mask, 50)) == mask.sum()
    assert len(codebook.learn(descriptors, np.zeros_like(mask), 50)) == 0
    assert len(codebook.learn(descriptors[:0], mask[:0], 50)) == 0
