import dataclasses

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.search import cann, local_search
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.lsh_grids import Grids, GridSettings

SETTINGS = GridSettings(grids=3, axes=3, approximation=1.6)


def unit(array):
    return (array / np.linalg.norm(array, axis=-1, keepdims=True)).astype(np.float32)


def problem(rng, count=9, features=5, dimension=6):
    return unit(rng.normal(size=(count, features, dimension))), rng.random((count, features)) < 0.8


def reference(database, mask, queries, query_mask, settings, idf=False):
    """One loop over everything, as the algorithm is told."""
    grids, votes = Grids.draw(settings, database.shape[2]), settings.votes()
    result = np.zeros((len(queries), len(database)))
    for q, query in enumerate(queries):
        for f in np.flatnonzero(query_mask[q]):
            voted = np.zeros(len(database))
            for i, image in enumerate(database):
                for r, vote in enumerate(votes):
                    cells = [
                        (grids.cells(query[f : f + 1], g)[r], grids.cells(image, g)[r][mask[i]])
                        for g in range(settings.grids)
                    ]
                    if any(np.isin(*pair).any() for pair in cells):
                        voted[i] = vote
                        break
            share = len(database) / max((voted > 0).sum(), 1)
            result[q] += voted * (np.log(share) / np.log(len(database)) if idf else 1.0)
        result[q] /= max(query_mask[q].sum(), 1)
    return result


@pytest.mark.parametrize("idf", [False, True])
def test_equals_the_reference(rng, idf):
    database, mask = problem(rng, 4, 3)
    queries, query_mask = problem(rng, 2, 4)
    settings = dataclasses.replace(SETTINGS, approximation=2.5, grids=2)
    index = cann.build(database, mask, settings)
    found = cann.similarity(index, queries, query_mask, idf)
    expected = reference(database, mask, queries, query_mask, settings, idf)
    np.testing.assert_allclose(found, expected, atol=1e-5)
    assert (found > 0).any()


def test_an_image_gets_the_vote_of_the_first_radius_from_itself(rng):
    database, mask = problem(rng)
    mask[:, 0] = True
    index = cann.build(database, mask, SETTINGS)
    found = cann.similarity(index, database, mask)
    np.testing.assert_allclose(np.diag(found), SETTINGS.votes()[0], rtol=1e-6)
    assert (found <= SETTINGS.votes()[0] + 1e-6).all()


@pytest.mark.parametrize("block", [1, 4, 99])
def test_any_block_gives_the_same_index(rng, block):
    database, mask = problem(rng)
    one, other = cann.build(database, mask, SETTINGS), cann.build(database, mask, SETTINGS, block)
    for name in ("keys", "images", "offsets"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))


def test_a_cell_names_an_image_once(rng):
    # The second image is the first twice: its cells are the same
    first = problem(rng, 1)[0]
    database = np.concatenate([first, first], axis=1)
    mask = np.ones((1, 10), bool)
    twice = cann.build(database, mask, SETTINGS)
    once = cann.build(first, mask[:, :5], SETTINGS)
    np.testing.assert_array_equal(twice.keys, once.keys)


def test_renaming_images_renames_similarities(rng):
    database, mask = problem(rng)
    queries, query_mask = problem(rng, 2)
    order = rng.permutation(9)
    expected = cann.similarity(cann.build(database, mask, SETTINGS), queries, query_mask)
    index = cann.build(database[order], mask[order], SETTINGS)
    np.testing.assert_allclose(
        cann.similarity(index, queries, query_mask), expected[:, order], atol=1e-6
    )


def test_nothing_finds_nothing(rng):
    database, mask = problem(rng)
    queries, query_mask = problem(rng, 2)
    index = cann.build(database, np.zeros_like(mask), SETTINGS)
    assert (cann.similarity(index, queries, query_mask) == 0).all()
    index = cann.build(database, mask, SETTINGS)
    assert (cann.similarity(index, queries, np.zeros_like(query_mask)) == 0).all()
    empty = cann.build(database[:0], mask[:0], SETTINGS)
    assert cann.similarity(empty, queries, query_mask).shape == (2, 0)


def test_keys_out_of_order_are_refused(rng):
    database, mask = problem(rng)
    index = cann.build(database, mask, SETTINGS)
    damaged = dataclasses.replace(index, keys=rng.permutation(index.keys))
    with pytest.raises(UserError, match="ascending"):
        cann.similarity(damaged, database, mask)


def test_another_dimension_is_refused(rng):
    index = cann.build(*problem(rng), SETTINGS)
    with pytest.raises(ValueError, match=r"`queries` \(D=5\).*\(D=6\)"):
        cann.similarity(index, *problem(rng, dimension=5))


def test_finds_nearly_what_exact_search_finds(rng):
    """Images of 12 places, whose features are those of the place with a little noise."""
    places = unit(rng.normal(size=(12, 8, 16)))
    noisy = unit(places[np.arange(60) % 12] + rng.normal(0, 0.04, (60, 8, 16)))
    queries = unit(places + rng.normal(0, 0.04, places.shape))
    masks = np.ones((60, 8), bool), np.ones((12, 8), bool)
    kernel = SimilarityKernel("cann", reach=1.0)
    exact = local_search.similarity(queries, masks[1], noisy, masks[0], kernel)
    settings = GridSettings(grids=8, axes=8, approximation=1.5)
    found = cann.similarity(cann.build(noisy, masks[0], settings), queries, masks[1])
    best = [set(np.argsort(-row, kind="stable")[:5]) for row in exact]
    overlap = [
        len(one & set(np.argsort(-row, kind="stable")[:5])) / 5
        for one, row in zip(best, found, strict=True)
    ]
    assert np.mean(overlap) > 0.9
