"""Renders one view of a landmark into a photograph, with its true geometry."""

import dataclasses

import numpy as np

from delg_jax.data.embedded.facade import SOLID, Facade
from delg_jax.data.embedded.light import draw_light, expose, shade_surface
from delg_jax.data.embedded.street import Street, draw_background
from delg_jax.data.embedded.views import KINDS, draw_view
from delg_jax.data.embedded.warp import footprint, pixel_grid

SHADOW_REACH = 0.011  # how far carvings cast their shadow, as a share of the facade's longer side


@dataclasses.dataclass(frozen=True)
class Photograph:
    """A rendered view.

    Attributes:
      image: uint8 [H, W, 3].
      homography: float64 [3, 3], facade pixels (x, y, 1) to image pixels.
      visible: share of the facade's area that is in the image and not hidden.
      box: float64 [4], (x1, y1, x2, y2) around what is seen of the facade, pixels; zeros if
        nothing is.
    """

    image: np.ndarray
    homography: np.ndarray
    visible: float
    box: np.ndarray


def render_view(
    rng: np.random.Generator, facade: Facade, street: Street, kind: str, image_side: int
) -> Photograph:
    """Renders a view.

    Args:
      rng: source of all draws of the view.
      facade: the landmark.
      street: pool of backgrounds.
      kind: a key of `views.KINDS`.
      image_side: pixels of the image's longer side.

    Returns:
      The photograph.
    """
    view = draw_view(rng, facade, kind, image_side)
    light = draw_light(rng, KINDS[kind].harsh)
    width, height = view.camera.size
    grid = pixel_grid(view.camera.size)
    image = draw_background(rng, street, view.camera, grid, (facade.width, facade.height))
    homography = view.camera.facade_homography()
    seen = footprint(facade.surface, homography, grid)
    surface = facade.surface.sample(seen.points, seen.level)
    towards = (light.direction[:2] / max(light.direction[2], 0.3)).astype(np.float32)
    reach = SHADOW_REACH * max(facade.width, facade.height) * towards
    above = facade.relief.sample(seen.points + reach[None, :], np.round(seen.level))[:, 0]
    position = seen.points / np.array([[facade.width, facade.height]], np.float32)
    cover = np.zeros((len(grid), 1), np.float32)
    cover[seen.pixels] = surface[:, SOLID, None]
    image *= 1 - cover
    image[seen.pixels] += shade_surface(surface, above, position, light)
    hidden = view.occluders[..., 3:]
    image = image.reshape(height, width, 3) * (1 - hidden) + view.occluders[..., :3]
    shown = cover.reshape(height, width) * (1 - hidden[..., 0]) > 0.5
    return Photograph(expose(rng, image, light), homography, view.visible, _box(shown))


def _box(shown: np.ndarray) -> np.ndarray:
    rows, columns = np.flatnonzero(shown.any(axis=1)), np.flatnonzero(shown.any(axis=0))
    if not len(rows):
        return np.zeros(4)
    return np.array([columns[0], rows[0], columns[-1] + 1, rows[-1] + 1], np.float64)
