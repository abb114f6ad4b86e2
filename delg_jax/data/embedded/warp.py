"""Seeing a textured plane through a homography."""

import numpy as np

from delg_jax.data.embedded.pyramid import Pyramid


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """Returns the pixel centres (x + 1/2, y + 1/2) of an image, float64 [H * W, 2]."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()], axis=-1)


def plane_points(homography: np.ndarray, grid: np.ndarray) -> tuple[np.ndarray, ...]:
    """Finds what each pixel sees of a plane.

    Args:
      homography: float [3, 3], plane coordinates to image pixels, third component positive in
        front of the camera.
      grid: float [n, 2], pixel positions (x, y).

    Returns:
      Pixels that see the plane (int [m]), the plane points there (float [m, 2]), and log2 of the
      plane units in a pixel there (float [m]), by area.
    """
    inverse = np.linalg.inv(homography)
    mapped = grid @ inverse[:, :2].T + inverse[:, 2][None, :]
    seen = np.flatnonzero(mapped[:, 2] > 1e-9)
    weight = mapped[seen, 2]
    area = abs(np.linalg.det(inverse)) / weight**3
    return seen, mapped[seen, :2] / weight[:, None], 0.5 * np.log2(area)


def warp(
    texture: Pyramid, homography: np.ndarray, grid: np.ndarray, zoom: float = 1.0, blur: float = 0.0
) -> np.ndarray:
    """Renders a textured plane, each pixel from the nearest level of its pyramid.

    Args:
      texture: pyramid with C channels.
      homography: float [3, 3], plane to image.
      grid: float [n, 2], pixel positions.
      zoom: texture pixels in a plane unit.
      blur: levels added to the one that the scale asks for.

    Returns:
      float32 [n, C], 0 where the plane is not seen.
    """
    seen, points, level = plane_points(homography, grid)
    values = texture.sample(points * zoom, np.round(level + np.log2(zoom) + blur))
    out = np.zeros((len(grid), values.shape[1]), np.float32)
    out[seen] = values
    return out
