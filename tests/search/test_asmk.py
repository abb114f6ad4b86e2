import itertools

import numpy as np
import pytest

from delg_jax.errors import WrongField
from delg_jax.search import asmk, kmeans
from delg_jax.search.asmk import AsmkIndex, AsmkScoring, AsmkSettings
from tests.search.test_local_search import ragged

DIM = 70  # no multiple of 64


def database(rng, images=12, features=15, dim=DIM):
    """Images that share features up to noise, with features that fall into the same list."""
    _, mask = ragged(rng, images, features)
    places = np.random.default_rng(7).normal(size=(40, dim))
    vectors = places[rng.integers(0, 40, mask.shape)] + rng.normal(0, 0.3, (*mask.shape, dim))
    return (vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)).astype(np.float32), mask


def build(data, words=6, aggregate=False, **options):
    return asmk.build(*data, AsmkSettings(words, aggregate), **options)


def signs(index, feature, word):
    return feature.astype(np.float32) - index.codebook.centres[word]


def lists_of(index, features, assignments, aggregate):
    """Vectors +1 and -1 of some features by their number and word."""
    found = {}
    for number, feature in enumerate(features):
        products = index.codebook.centres @ feature
        for word in np.argsort(-products, kind="stable")[:assignments]:
            key = (0 if aggregate else number, int(word))
            found[key] = found.get(key, 0.0) + signs(index, feature, word)
    return {key: np.where(vector > 0, 1.0, -1.0) for key, vector in found.items()}


def reference(index, data, queries, scoring):
    """One loop over everything."""
    aggregate, count = index.settings.aggregate, len(data[0])
    images = [lists_of(index, x[m], 1, aggregate) for x, m in zip(*data, strict=True)]
    has = [{word for _, word in entries} for entries in images]
    frequency = np.array([sum(w in words for words in has) for w in range(len(index.codebook))])
    weights = np.ones(len(frequency))
    if scoring.idf == "words":
        weights = np.array([np.log(count / f) ** 2 if f else 1.0 for f in frequency])
    result = np.zeros((len(queries[0]), count))
    for row, (query, valid) in enumerate(zip(*queries, strict=True)):
        asked = lists_of(index, query[valid], scoring.assignments, aggregate)
        votes = {}
        for ((number, word), code), image in itertools.product(asked.items(), range(count)):
            for (_, other), entry in images[image].items():
                cosine = code @ entry / len(code)
                if other != word or cosine < scoring.threshold or cosine <= 0:
                    continue
                key = (word if aggregate else number, image)
                votes[key] = max(votes.get(key, 0.0), cosine**scoring.power * weights[word])
        voters = len(asked) if aggregate else valid.sum()
        matched = [voter for voter, _ in votes]
        for (voter, image), vote in votes.items():
            rarity = np.log(count / matched.count(voter)) / np.log(count)
            result[row, image] += vote * (rarity if scoring.idf == "hits" else 1.0)
        if scoring.normalize:
            own = weights[list({word for _, word in asked})].sum()
            norms = [np.sqrt(own * sum(weights[list(words)])) for words in has]
            result[row] /= np.where(np.array(norms) > 0, norms, 1.0)
        else:
            result[row] /= max(voters, 1)
    return result


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("normalize", [False, True])
@pytest.mark.parametrize("idf", asmk.IDF)
@pytest.mark.parametrize(("assignments", "threshold"), [(1, 0.0), (3, 0.2), (99, 0.4)])
def test_equals_the_reference(rng, aggregate, normalize, idf, assignments, threshold):
    data, queries = database(rng), database(rng, 3, 9)
    index = build(data, aggregate=aggregate)
    scoring = AsmkScoring(assignments, threshold, 2.5, idf, normalize)
    found = asmk.similarity(index, *queries, scoring)
    assert found.dtype == np.float32
    assert (found > 0).any()
    np.testing.assert_allclose(found, reference(index, data, queries, scoring), atol=1e-6)


@pytest.mark.parametrize("assignments", [1, 3])
@pytest.mark.parametrize("idf", ["none", "words"])
def test_equals_the_package_asmk(rng, assignments, idf):
    kernel = pytest.importorskip("asmk.kernel")
    inverted_file = pytest.importorskip("asmk.inverted_file")
    data, queries = database(rng, 40, 30, 64), database(rng, 5, 20, 64)
    index = build(data, 32, aggregate=True)

    class Words:
        size, centroids = 32, index.codebook.centres

    peer = kernel.ASMKKernel(Words, binary=True)
    lists = inverted_file.IVF.initialize_empty(codebook_size=32, use_idf=idf == "words")
    owners = np.nonzero(data[1])[0]
    words = (data[0][data[1]] @ Words.centroids.T).argmax(axis=1)[:, None]
    lists.add(*peer.aggregate(data[0][data[1]], words, owners))
    options = {"alpha": 3.0, "similarity_threshold": 0.1}
    found = asmk.similarity(index, *queries, AsmkScoring(assignments, 0.1, 3.0, idf, True))
    for row, (query, valid) in enumerate(zip(*queries, strict=True)):
        order = np.argsort(-(query[valid] @ Words.centroids.T), axis=1)[:, :assignments]
        ranks, scores = lists.search(
            *peer.aggregate_image(query[valid], order),
            similarity_func=lambda *args: peer.similarity(*args, **options),
            topk=None,
        )
        expected = np.zeros(40)
        expected[ranks] = scores
        assert (expected > 0).any()
        np.testing.assert_allclose(found[row], expected, rtol=1e-5, atol=1e-7)


def test_entries_are_sorted_signs_of_differences(rng):
    data = database(rng)
    index = build(data)
    (part,) = index.parts
    vectors, owners = data[0][data[1]], np.nonzero(data[1])[0]
    words = (vectors @ index.codebook.centres.T).argmax(axis=1)
    order = np.argsort(words, kind="stable")
    np.testing.assert_array_equal(part.images, owners[order])
    np.testing.assert_array_equal(np.diff(part.offsets), np.bincount(words, minlength=6))
    bits = np.unpackbits(np.ascontiguousarray(part.codes.T).view(np.uint8), axis=1)
    differences = vectors - index.codebook.centres[words]
    np.testing.assert_array_equal(bits[:, :DIM], differences[order] > 0)
    assert (bits[:, DIM:] == 0).all()
    pairs = np.unique(np.stack([words, owners]), axis=1)
    np.testing.assert_array_equal(part.frequency, np.bincount(pairs[0], minlength=6))


def equal(one, other):
    assert one.count == other.count
    for name in ("codes", "images", "offsets", "frequency"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("block", [1, 5, 99])
def test_any_block_gives_the_same_lists(rng, block, aggregate):
    data = database(rng)
    index = build(data, aggregate=aggregate)
    equal(asmk.build_part(index.codebook, aggregate, *data, block=block), index.parts[0])


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize("merged", [1, 40, 10**6])
def test_merged_parts_are_one_part(rng, monkeypatch, merged, aggregate):
    monkeypatch.setattr(asmk, "_MERGED", merged)
    data = database(rng)
    index = build(data, aggregate=aggregate)
    cuts = (0, 4, 5, 12)
    parts = [
        asmk.build_part(index.codebook, aggregate, *data, first, stop, block=3)
        for first, stop in itertools.pairwise(cuts)
    ]
    equal(asmk.merge(parts), index.parts[0])
    several = AsmkIndex(index.settings, index.codebook, parts)
    for idf, normalize in (("words", True), ("hits", False)):
        scoring = AsmkScoring(3, 0.1, 3.0, idf, normalize)
        np.testing.assert_allclose(
            asmk.similarity(several, *data, scoring),
            asmk.similarity(index, *data, scoring),
            atol=1e-7,
        )


@pytest.mark.parametrize("aggregate", [False, True])
def test_images_left_out_of_a_merge_were_never_there(rng, aggregate):
    data = database(rng)
    index = build(data, aggregate=aggregate)
    keep = np.ones(12, bool)
    keep[[0, 5, 6, 11]] = False
    expected = asmk.build_part(index.codebook, aggregate, data[0][keep], data[1][keep])
    equal(asmk.merge(index.parts, [keep]), expected)
    halves = [
        asmk.build_part(index.codebook, aggregate, *data, *ends) for ends in ((0, 6), (6, 12))
    ]
    equal(asmk.merge(halves, [keep[:6], keep[6:]]), expected)
    assert asmk.merge(halves, [np.zeros(6, bool)] * 2).count == 0


@pytest.mark.parametrize("aggregate", [False, True])
@pytest.mark.parametrize(("short", "cached", "together"), [(0, 3, 9), (5, 4, 8), (99, 9, 1)])
def test_short_and_long_lists_are_compared_alike(
    rng, monkeypatch, short, cached, together, aggregate
):
    data = database(rng)
    index, scoring = build(data, aggregate=aggregate), AsmkScoring(3, 0.1)
    expected = asmk.similarity(index, *data, scoring)
    for name, value in (("_SHORT", short), ("_CACHED", cached), ("_TOGETHER", together)):
        monkeypatch.setattr(asmk, name, value)
    np.testing.assert_allclose(asmk.similarity(index, *data, scoring), expected, atol=1e-7)


@pytest.mark.parametrize("aggregate", [False, True])
def test_the_order_of_features_and_images_does_not_matter(rng, aggregate):
    data, queries = database(rng), database(rng, 3, 9)
    index, scoring = build(data, aggregate=aggregate), AsmkScoring(3, 0.1)
    expected = asmk.similarity(index, *queries, scoring)
    order, places = rng.permutation(12), rng.permutation(15)
    moved = tuple(side[order][:, places] for side in data)
    part = asmk.build_part(index.codebook, aggregate, *moved)
    other = AsmkIndex(index.settings, index.codebook, [part])
    mix = rng.permutation(9)
    found = asmk.similarity(other, queries[0][:, mix], queries[1][:, mix], scoring)
    np.testing.assert_allclose(found, expected[:, order], atol=1e-6)


def test_wide_and_narrow_codes(rng):
    for dim in (5, 64, 320):
        data, queries = database(rng, dim=dim), database(rng, 2, 5, dim)
        index, scoring = build(data), AsmkScoring(2, 0.0, 1.0)
        found = asmk.similarity(index, *queries, scoring)
        np.testing.assert_allclose(found, reference(index, data, queries, scoring), atol=1e-6)


@pytest.mark.parametrize("aggregate", [False, True])
def test_nothing_finds_nothing(rng, aggregate):
    data, queries = database(rng), database(rng, 2, 5)
    index, scoring = build(data, aggregate=aggregate), AsmkScoring(normalize=True)
    none = np.zeros_like(queries[1])
    assert (asmk.similarity(index, queries[0], none, scoring) == 0).all()
    bare = build((data[0], np.zeros_like(data[1])), aggregate=aggregate)
    assert (asmk.similarity(bare, *queries, scoring) == 0).all()
    assert bare.count == 12
    empty = build((data[0][:0], data[1][:0]), aggregate=aggregate)
    assert asmk.similarity(empty, *queries, scoring).shape == (2, 0)
    # A query of one of the features that are words differs from its word in nothing
    exact = kmeans.grouped(data[0][data[1]][:3])
    part = asmk.build_part(exact, aggregate, *data)
    alone = AsmkIndex(index.settings, exact, [part])
    assert np.isfinite(asmk.similarity(alone, *data, scoring)).all()


def test_an_image_without_features_has_no_similarity(rng):
    vectors, mask = database(rng)
    mask[4] = False
    for normalize in (False, True):
        scoring = AsmkScoring(3, 0.1, normalize=normalize)
        found = asmk.similarity(build((vectors, mask)), vectors, mask, scoring)
        assert np.isfinite(found).all()
        assert (found[:, 4] == 0).all()
        assert (found[4] == 0).all()


def test_wrong_arguments_are_named(rng):
    index = build(database(rng))
    with pytest.raises(ValueError, match=r"`queries` \(D=6\)"):
        asmk.similarity(index, *database(rng, 2, 3, 6), AsmkScoring())
    for wrong in ({"words": 0}, {"words": 65_537}, {"rounds": -1}, {"seed": -1}):
        with pytest.raises(WrongField, match=f"`{next(iter(wrong))}`"):
            AsmkSettings(**wrong)
    for wrong in ({"assignments": 0}, {"threshold": 1.0}, {"power": -1.0}, {"idf": "all"}):
        with pytest.raises(WrongField, match=f"`{next(iter(wrong))}`"):
            AsmkScoring(**wrong)
