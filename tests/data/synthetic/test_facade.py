import numpy as np
import pytest

from delg_jax.data.synthetic.camera import footprint, pixel_grid
from delg_jax.data.synthetic.facade import SOLID, UNITS, build_facade
from delg_jax.data.synthetic.materials import family_style

SIDE = 160


def _pixels(facade):
    grid = pixel_grid((facade.width, facade.height))
    seen = footprint(facade.surface, np.eye(3), grid)
    assert len(seen.pixels) == len(grid)
    surface = facade.surface.sample(seen.points, seen.level)
    return surface.reshape(facade.height, facade.width, -1)


def test_a_landmark_is_the_same_every_time():
    first, second = (_pixels(build_facade(5, 3, 1, SIDE)) for _ in range(2))
    np.testing.assert_array_equal(first, second)


@pytest.mark.parametrize(("seed", "landmark"), [(5, 4), (6, 3)])
def test_another_id_or_seed_is_another_landmark(seed, landmark):
    one, other = (
        _pixels(build_facade(5, 3, 1, SIDE)),
        _pixels(build_facade(seed, landmark, 1, SIDE)),
    )
    height, width = (min(a, b) for a, b in zip(one.shape[:2], other.shape[:2], strict=True))
    assert abs(one[:height, :width, :3] - other[:height, :width, :3]).mean() > 0.05


@pytest.mark.parametrize("family", range(8))
def test_facades_have_a_silhouette_and_detail(family):
    facade = build_facade(1, family, family, SIDE)
    assert max(facade.width, facade.height) == SIDE
    assert 0.6 < facade.solid.mean() < 1
    assert facade.solid[-1].mean() > 0.9  # it stands on the ground
    surface = _pixels(facade)
    np.testing.assert_array_equal(surface[..., SOLID] > 0.5, facade.solid)
    grey = surface[..., :3].mean(axis=-1)
    cells = grey[facade.height // 4 :, :]
    rows, columns = cells.shape[0] // 20, cells.shape[1] // 20
    blocks = cells[: rows * 20, : columns * 20].reshape(rows, 20, columns, 20)
    assert (blocks.std(axis=(1, 3)) > 0.02).mean() > 0.8


def test_a_family_shares_its_style_but_not_its_details():
    style = family_style(2, 3)
    assert family_style(2, 3) == style
    assert family_style(2, 4) != style
    assert family_style(3, 3) != style
    twins = [_pixels(build_facade(2, landmark, 3, SIDE))[..., :3] for landmark in (0, 1)]
    stranger = _pixels(build_facade(2, 2, 4, SIDE))[..., :3]
    means = [np.median(image[UNITS // 3 :], axis=(0, 1)) for image in (*twins, stranger)]
    assert abs(means[0] - means[1]).max() < abs(means[0] - means[2]).max()
