import numpy as np
import pytest

from delg_jax.search.lsh_grids import Grids, GridSettings


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
