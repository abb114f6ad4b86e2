"""A pinhole camera before a facade, and the homographies of the planes that it sees.

World axes: x along the facade, y down, z into it; the unit is a facade pixel and the origin the
facade's upper left corner.
"""

import dataclasses

import numpy as np


@dataclasses.dataclass(frozen=True)
class Camera:
    """A posed camera.

    Attributes:
      rotation: float64 [3, 3], world to camera; rows are its right, down and forward axes.
      centre: float64 [3], its place in the world.
      focal: focal length in image pixels.
      size: (width, height) of the image in pixels.
    """

    rotation: np.ndarray
    centre: np.ndarray
    focal: float
    size: tuple[int, int]

    def plane_homography(
        self, origin: np.ndarray, across: np.ndarray, down: np.ndarray
    ) -> np.ndarray:
        """Returns the map of plane coordinates (u, v, 1) to image pixels.

        Args:
          origin: float [3], world point with coordinates (0, 0).
          across: float [3], world step of one u.
          down: float [3], world step of one v.

        Returns:
          float64 [3, 3]; for points in front of the camera the third component is positive.
        """
        width, height = self.size
        intrinsic = np.array([[self.focal, 0, width / 2], [0, self.focal, height / 2], [0, 0, 1]])
        return intrinsic @ self.rotation @ np.stack([across, down, origin - self.centre], axis=-1)

    def facade_homography(self) -> np.ndarray:
        """Returns the map of facade pixels (x, y, 1) to image pixels, float64 [3, 3]."""
        return self.plane_homography(np.zeros(3), np.array([1.0, 0, 0]), np.array([0, 1.0, 0]))


def look_at(
    target: np.ndarray,
    angles: tuple[float, float, float],
    distance: float,
    focal: float,
    size: tuple[int, int],
) -> Camera:
    """Returns a camera that has a point in the middle of its image.

    Args:
      target: float [3], world point.
      angles: yaw (positive looks to the right), pitch (positive looks up), roll, in radians.
      distance: from the camera to the point, facade pixels.
      focal: focal length in image pixels.
      size: (width, height) of the image in pixels.
    """
    yaw, pitch, roll = angles
    forward = np.array([np.sin(yaw) * np.cos(pitch), -np.sin(pitch), np.cos(yaw) * np.cos(pitch)])
    right = np.cross([0.0, 1.0, 0.0], forward)
    right /= np.linalg.norm(right)
    down = np.cross(forward, right)
    turned = np.cos(roll) * right + np.sin(roll) * down
    return Camera(
        rotation=np.stack([turned, np.cross(forward, turned), forward]),
        centre=np.asarray(target, float) - distance * forward,
        focal=focal,
        size=size,
    )


def transform(homography: np.ndarray, points: np.ndarray) -> np.ndarray:
    """Maps points through a homography.

    Args:
      homography: float [3, 3].
      points: float [n, 2], (x, y).

    Returns:
      float [n, 2], (x, y); NaN for points on or behind the camera's plane.
    """
    mapped = points @ homography[:, :2].T + homography[:, 2][None, :]
    depth = np.where(mapped[:, 2:] > 1e-9, mapped[:, 2:], np.nan)
    return mapped[:, :2] / depth


def homography_between(view_a: np.ndarray, view_b: np.ndarray) -> np.ndarray:
    """Returns the homography that maps pixels of one view to another of the same landmark.

    Args:
      view_a: float [3, 3], homography of the first view: facade pixels to image pixels.
      view_b: float [3, 3], homography of the second view.

    Returns:
      float64 [3, 3]: (x, y, 1) of the first image to the second. It is not rescaled: the third
      component is how much farther a point is from the second camera than from the first, and
      negative behind the second.
    """
    return np.asarray(view_b, np.float64) @ np.linalg.inv(np.asarray(view_a, np.float64))


LEVELS = 5
MARGIN = 2 ** (LEVELS - 1)  # pixels around the texture, so that its edges are smooth at all levels


class Pyramid:
    """A texture at halved resolutions, ready to be sampled anywhere.

    Args:
      texture: float32 [H, W, C]; H and W are multiples of `MARGIN`.
      mirror: whether it continues to the sides, and up and down, as in facing mirrors; where not,
        it is 0.

    Attributes:
      size: (W, H).
      channels: C.
      mirror: as given.
    """

    def __init__(self, texture: np.ndarray, mirror: tuple[bool, bool] = (False, False)) -> None:
        height, width, self.channels = texture.shape
        if height % MARGIN or width % MARGIN:
            raise ValueError(f"texture {texture.shape}: sides must be multiples of {MARGIN}")
        self.size, self.mirror = (width, height), mirror
        level = texture
        for axis in range(2):
            pads = [(0, 0)] * 3
            pads[axis] = (MARGIN, MARGIN)
            level = np.pad(level, pads, mode="symmetric" if mirror[1 - axis] else "constant")
        levels = [level]
        for _ in range(LEVELS - 1):
            rows = level[::2] + level[1::2]
            level = (rows[:, ::2] + rows[:, 1::2]) / 4
            levels.append(level)
        self._values = np.concatenate([level.reshape(-1, self.channels) for level in levels])
        self._values = self._values.astype(np.float32)
        self._shapes = np.array([level.shape[:2] for level in levels])
        self._starts = np.cumsum([0] + [level.shape[0] * level.shape[1] for level in levels[:-1]])

    def sample(self, points: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Samples with trilinear interpolation.

        Args:
          points: float32 [n, 2], (x, y) in pixels of the texture, pixel centres at halves.
          level: float32 [n], log2 of the texture pixels in an output pixel.

        Returns:
          float32 [n, C], 0 outside the texture where it is not mirrored.
        """
        x, y = (
            _folded(part, side) if mirror else part
            for part, side, mirror in zip(points.T, self.size, self.mirror, strict=True)
        )
        level = np.clip(level, 0, LEVELS - 1)
        lower = level.astype(np.int64)
        values = self._bilinear(x, y, lower)
        share = level - lower
        mixed = np.flatnonzero(share)  # a whole level needs no second look
        coarse = self._bilinear(x[mixed], y[mixed], lower[mixed] + 1)
        values[mixed] += share[mixed, None].astype(np.float32) * (coarse - values[mixed])
        return values

    def _bilinear(self, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        rows, columns = self._shapes.astype(np.float32)[level].T
        scale = np.float32(0.5) ** np.arange(LEVELS, dtype=np.float32)
        x = np.clip((x + MARGIN) * scale[level] - np.float32(0.5), 0, columns - np.float32(1.01))
        y = np.clip((y + MARGIN) * scale[level] - np.float32(0.5), 0, rows - np.float32(1.01))
        left, top = x.astype(np.int64), y.astype(np.int64)
        width = self._shapes[level, 1]
        corner = self._starts[level] + top * width + left
        across = (x - left).astype(np.float32)[:, None]
        down = (y - top).astype(np.float32)[:, None]
        upper = self._between(corner, across)
        return upper + down * (self._between(corner + width, across) - upper)

    def _between(self, index: np.ndarray, share: np.ndarray) -> np.ndarray:
        left = self._values.take(index, axis=0)
        return left + share * (self._values.take(index + 1, axis=0) - left)


def _folded(coordinate: np.ndarray, period: float) -> np.ndarray:
    """Folds a coordinate into [0, period]."""
    return np.float32(period) - abs(np.mod(coordinate, np.float32(2 * period)) - np.float32(period))


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
