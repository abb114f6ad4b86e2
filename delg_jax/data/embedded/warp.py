"""Seeing a textured plane through a homography."""

import dataclasses

import numpy as np

from delg_jax.data.embedded.pyramid import MARGIN, Pyramid


@dataclasses.dataclass(frozen=True)
class Footprint:
    """What the pixels of an image see of a texture.

    Attributes:
      pixels: int64 [m], the pixels that see it, in row-major order.
      points: float32 [m, 2], texture points (x, y) there.
      level: float32 [m], log2 of the texture pixels in an image pixel there, by area.
    """

    pixels: np.ndarray
    points: np.ndarray
    level: np.ndarray


def pixel_grid(size: tuple[int, int]) -> np.ndarray:
    """Returns the pixel centres (x + 1/2, y + 1/2) of an image, float32 [H * W, 2]."""
    width, height = size
    x, y = np.meshgrid(np.arange(width) + 0.5, np.arange(height) + 0.5)
    return np.stack([x.ravel(), y.ravel()]).astype(np.float32).T


def footprint(
    texture: Pyramid, homography: np.ndarray, grid: np.ndarray, zoom: float = 1.0
) -> Footprint:
    """Finds what each pixel sees of a textured plane.

    Args:
      texture: the texture; where it is not mirrored, pixels far beyond its edges see nothing.
      homography: float [3, 3], plane coordinates to image pixels, third component positive in
        front of the camera.
      grid: float32 [n, 2], pixel positions (x, y).
      zoom: texture pixels in a plane unit.

    Returns:
      The footprint, m <= n.
    """
    inverse = np.linalg.inv(homography)
    area = abs(np.linalg.det(inverse)) * zoom**2
    x, y = grid.T
    u, v, weight = (row[0] * x + row[1] * y + row[2] for row in inverse.astype(np.float32))
    seen = weight > 1e-9
    for part, side, mirror in zip((u, v), texture.size, texture.mirror, strict=True):
        if not mirror:  # compared before dividing by the weight, which may be zero
            seen &= (part * zoom > -MARGIN * weight) & (part * zoom < (side + MARGIN) * weight)
    pixels = np.flatnonzero(seen)
    weight = weight[pixels]
    points = np.stack([u[pixels], v[pixels]]) * np.float32(zoom) / weight[None, :]
    level = np.float32(0.5 * np.log2(area)) - np.float32(1.5) * np.log2(weight)
    return Footprint(pixels, points.T, level)


def warp(
    texture: Pyramid, homography: np.ndarray, grid: np.ndarray, zoom: float, blur: float
) -> np.ndarray:
    """Renders a textured plane, each pixel from the nearest level of its pyramid.

    Args:
      texture: pyramid with C channels.
      homography: float [3, 3], plane to image.
      grid: float32 [n, 2], pixel positions.
      zoom: texture pixels in a plane unit.
      blur: levels added to the one that the scale asks for.

    Returns:
      float32 [n, C], 0 where the plane is not seen.
    """
    seen = footprint(texture, homography, grid, zoom)
    out = np.zeros((len(grid), texture.channels), np.float32)
    out[seen.pixels] = texture.sample(seen.points, np.round(seen.level + np.float32(blur)))
    return out
