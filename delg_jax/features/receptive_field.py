"""Where in the image a position of conv4 looks (Araujo et al., Distill 2019)."""

import numpy as np

# Of conv4, as the official extractor has them for every backbone, in pixels. All conventions are
# centred: the padding is half of the size, so that the centre of position i is stride * i.
SIZE = 291
PADDING = 145


def centres(cells: np.ndarray, stride: int, scale: float) -> np.ndarray:
    """Centres of receptive fields in pixels of the image before it was scaled.

    Args:
      cells: int [K, 2], row and column on the map.
      stride: pixels between positions, 16 or 32.
      scale: of the pyramid level.

    Returns:
      float32 [K, 2], (y, x).
    """
    return ((stride * cells.astype(np.float32) - PADDING + (SIZE - 1) / 2) / scale).astype(
        np.float32
    )


def boxes(locations: np.ndarray, scales: np.ndarray) -> np.ndarray:
    """Receptive fields around keypoints, as the official files list them.

    Args:
      locations: float32 [K, 2], centres (y, x) in pixels.
      scales: float32 [K], 1 / (scale of the pyramid level).

    Returns:
      float32 [K, 4]: y1, x1, y2, x2 in pixels.
    """
    half = ((SIZE - 1) / 2 * scales)[:, None]
    return np.concatenate([locations - half, locations + half], axis=1).astype(np.float32)
