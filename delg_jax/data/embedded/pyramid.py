"""Mip pyramid: a texture sampled at any scale without aliasing."""

import numpy as np

LEVELS = 5
MARGIN = 2 ** (LEVELS - 1)  # empty pixels around the texture, so that its edges fade to nothing


class Pyramid:
    """A texture at halved resolutions, ready to be sampled anywhere.

    Args:
      texture: float32 [H, W, C]; H and W are multiples of `MARGIN`.
      mirror_x: whether it goes on to the left and right as in facing mirrors; else it is 0 there.
      mirror_y: the same, up and down.
    """

    def __init__(
        self, texture: np.ndarray, mirror_x: bool = False, mirror_y: bool = False
    ) -> None:
        if texture.shape[0] % MARGIN or texture.shape[1] % MARGIN:
            raise ValueError(f"texture {texture.shape}: sides must be multiples of {MARGIN}")
        level = texture
        for axis, mirror in enumerate((mirror_y, mirror_x)):
            pads = [(0, 0)] * 3
            pads[axis] = (MARGIN, MARGIN)
            level = np.pad(level, pads, mode="symmetric" if mirror else "constant")
        self._mirror = (mirror_x, mirror_y)
        flat, shapes = [], []
        for _ in range(LEVELS):
            height, width, channels = level.shape
            flat.append(level.reshape(-1, channels))
            shapes.append((height, width))
            if len(shapes) < LEVELS:
                level = level.reshape(height // 2, 2, width // 2, 2, channels).mean(axis=(1, 3))
        self.height, self.width = texture.shape[:2]
        self._values = np.concatenate(flat)
        self._shapes = np.array(shapes)
        self._starts = np.cumsum([0] + [len(values) for values in flat[:-1]])

    def sample(self, points: np.ndarray, level: np.ndarray) -> np.ndarray:
        """Samples with trilinear interpolation.

        Args:
          points: float [n, 2], (x, y) in pixels of the texture, pixel centres at halves.
          level: float [n], log2 of the texture pixels in an output pixel.

        Returns:
          float32 [n, C], 0 outside the texture where it is not mirrored.
        """
        x, y = points.T
        x = _folded(x, self.width) if self._mirror[0] else x
        y = _folded(y, self.height) if self._mirror[1] else y
        near = (abs(x - self.width / 2) < self.width / 2 + MARGIN) & (
            abs(y - self.height / 2) < self.height / 2 + MARGIN
        )
        near = np.flatnonzero(near)
        x, y, level = x[near], y[near], np.clip(level[near], 0, LEVELS - 1)
        lower = level.astype(np.int64)
        values = self._bilinear(x, y, lower)
        share = (level - lower).astype(np.float32)
        mixed = np.flatnonzero(share)  # a whole level needs no second look
        coarse = self._bilinear(x[mixed], y[mixed], lower[mixed] + 1)
        values[mixed] += share[mixed, None] * (coarse - values[mixed])
        out = np.zeros((len(points), values.shape[1]), np.float32)
        out[near] = values
        return out

    def _bilinear(self, x: np.ndarray, y: np.ndarray, level: np.ndarray) -> np.ndarray:
        height, width = self._shapes[level].T
        scale = 0.5**level
        x = np.clip((x + MARGIN) * scale - 0.5, 0, width - 1.001)
        y = np.clip((y + MARGIN) * scale - 0.5, 0, height - 1.001)
        left, top = x.astype(np.int64), y.astype(np.int64)
        u = (x - left).astype(np.float32)[:, None]
        v = (y - top).astype(np.float32)[:, None]
        corner = self._starts[level] + top * width + left
        upper = self._between(corner, u)
        return upper + v * (self._between(corner + width, u) - upper)

    def _between(self, index: np.ndarray, share: np.ndarray) -> np.ndarray:
        left = self._values.take(index, axis=0)
        return left + share * (self._values.take(index + 1, axis=0) - left)


def _folded(coordinate: np.ndarray, period: float) -> np.ndarray:
    """Folds a coordinate into [0, period]."""
    wrapped = np.mod(coordinate, 2 * period)
    return np.where(wrapped > period, 2 * period - wrapped, wrapped)
