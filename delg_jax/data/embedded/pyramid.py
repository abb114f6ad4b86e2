"""Mip pyramid: a texture sampled at any scale without aliasing."""

import numpy as np

LEVELS = 5
MARGIN = 2 ** (LEVELS - 1)  # pixels around the texture, so that its edges are smooth at all levels


class Pyramid:
    """A texture at halved resolutions, ready to be sampled anywhere.

    Args:
      texture: float32 [H, W, C]; H and W are multiples of `MARGIN`.
      mirror: whether it goes on to the sides, and up and down, as in facing mirrors; where not,
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
