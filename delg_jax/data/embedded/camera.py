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
