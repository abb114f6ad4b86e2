import dataclasses

import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.search import cann, local_search
from delg_jax.search.cann import Grids, GridSettings
from delg_jax.search.kernels import SimilarityKernel


def test_radii_and_votes_are_those_of_the_original_defaults():
    settings = GridSettings.from_scale(1.0)
    radii, votes = settings.radii(), settings.votes()
    assert (settings.first_radius, settings.reach) == (28.283, 120.0)
    assert len(radii) == len(votes) == 36
    np.testing.assert_allclose(radii[[0, -1]], [28.283, 117.3], atol=0.05)
    np.testing.assert_allclose(radii[1:] / radii[:-1], 1 + 0.16594 / 4)
    np.testing.assert_allclose(votes[[0, -1]], [0.665, 0.009], atol=5e-4)
    assert (np.diff(votes) < 0).all()


def test_scaling_the_descriptors_scales_the_radii_and_not_the_votes():
    original, unit = GridSettings.from_scale(1.0), GridSettings.from_scale(160.0)
    np.testing.assert_allclose(unit.radii() * 160, original.radii())
    np.testing.assert_allclose(unit.votes(), original.votes(), atol=1e-5)
    default = GridSettings()
    np.testing.assert_allclose(default.radii() * 120, original.radii())


def test_grids_are_orthonormal_and_the_same_every_time():
    settings = GridSettings(grids=3, axes=4, seed=5)
    one, other = Grids.draw(settings, 7), Grids.draw(settings, 7)
    assert one.rotations.shape == (3, 7, 4)
    for rotation in one.rotations:
        np.testing.assert_allclose(rotation.T @ rotation, np.eye(4), atol=1e-6)
    for name in ("rotations", "shifts", "factors", "sides"):
        np.testing.assert_array_equal(getattr(one, name), getattr(other, name))
    assert not np.allclose(one.rotations[0], one.rotations[1])
    np.testing.assert_allclose(one.sides, settings.radii() * 1.16594 / 7**0.5, rtol=1e-6)
    changed = Grids.draw(GridSettings(grids=3, axes=4, seed=6), 7)
    assert not np.allclose(one.shifts, changed.shifts)
    assert Grids.draw(GridSettings(grids=1), 5).rotations.shape == (1, 5, 5)


@pytest.mark.parametrize("axes", [0, 3])
def test_vectors_share_a_key_where_they_share_a_cell(rng, axes):
    grids = Grids.draw(GridSettings(grids=2, axes=axes), 5)
    vectors = rng.normal(0, 0.05, (60, 5)).astype(np.float32)
    keys = grids.cells(vectors, 1)
    assert keys.dtype == np.uint32
    shared = 0
    for row, side in zip(keys, grids.sides, strict=True):
        turned = vectors @ grids.rotations[1] / side + grids.shifts[1]
        cells = np.floor(turned)
        clear = np.abs(turned - np.round(turned)).min(axis=1) > 1e-4  # not rounded otherwise
        same = (cells[:, None] == cells[None]).all(axis=2)
        both = clear[:, None] & clear[None]
        np.testing.assert_array_equal((row[:, None] == row[None])[both], same[both])
        shared += same[both].sum() - clear.sum()
    assert shared > 0


def test_a_cell_is_no_longer_than_its_diagonal(rng):
    settings = GridSettings(grids=1)
    vectors = rng.normal(0, 0.1, (200, 3)).astype(np.float32)
    between = np.linalg.norm(vectors[:, None] - vectors[None], axis=-1)
    keys = Grids.draw(settings, 3).cells(vectors, 0)
    for row, radius in zip(keys, settings.radii(), strict=True):
        same = row[:, None] == row[None]
        assert between[same].max() <= 1.16594 * radius * (1 + 1e-5)


@pytest.mark.parametrize(
    "wrong",
    [
        {"first_radius": 0.0},
        {"first_radius": 1.0},
        {"curve": 1.0},
        {"approximation": 1.0},
        {"grids": 0},
        {"axes": -1},
        {"width": 0.0},
    ],
)
def test_wrong_settings_are_named(wrong):
    with pytest.raises(ValueError, match=f"`{next(iter(wrong))}`"):
        GridSettings(**wrong)


def test_an_invalid_norm_is_named():
    with pytest.raises(ValueError, match="`norm`"):
        GridSettings.from_scale(0.0)


def test_wider_cells_are_the_cells_of_shorter_vectors(rng):
    vectors = rng.normal(0, 0.1, (50, 4)).astype(np.float32)
    wide = Grids.draw(GridSettings(grids=1, width=2.0), 4).cells(vectors, 0)
    np.testing.assert_array_equal(wide, Grids.draw(GridSettings(grids=1), 4).cells(vectors / 2, 0))


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
    with pytest.raises(UserError, match="keys.* order"):
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
