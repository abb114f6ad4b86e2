"""Which index images answer a query, in the style of Revisited Oxford and Paris.

The truth is known, not labelled: it follows from the homographies of the two views and from how
much of the landmark the index view shows. An index image of the query's landmark is

- junk if less than `JUNK_VISIBLE` of the facade is seen;
- easy if at least `EASY_VISIBLE` is seen, at a scale within a factor of `EASY_SCALE` of the
  query's, and squeezed by at most `EASY_TILT` against it;
- hard otherwise.

Scale and tilt are those of the map from the query to the index image around the middle of the
query's box: with singular values s1 >= s2 of its Jacobian, sqrt(s1 s2) and s1 / s2 (the
transition tilt of Morel and Yu, "ASIFT", 2009).
"""

import numpy as np

from delg_jax.data.embedded.camera import homography_between, transform

JUNK_VISIBLE = 0.25
EASY_VISIBLE = 0.6
EASY_SCALE = 1.8
EASY_TILT = 1.3


def scale_and_tilt(homography: np.ndarray, point: np.ndarray) -> tuple[float, float]:
    """Measures how a homography changes the neighbourhood of a point.

    Args:
      homography: float [3, 3].
      point: float [2], (x, y).

    Returns:
      Change of scale (above 1 enlarges) and transition tilt (at least 1); NaN where the point
      does not come out in front of the camera.
    """
    around = point[None, :] + np.array([(-0.5, 0), (0.5, 0), (0, -0.5), (0, 0.5)])
    left, right, upper, lower = transform(homography, around)
    jacobian = np.stack([right - left, lower - upper], axis=-1)
    if np.isnan(jacobian).any():
        return float("nan"), float("nan")
    large, small = np.linalg.svd(jacobian, compute_uv=False)
    return float(np.sqrt(large * small)), float(large / max(small, 1e-12))


def relevance(
    query: np.ndarray, query_box: np.ndarray, index: np.ndarray, index_visible: float
) -> str:
    """Tells how an index image of the query's own landmark counts.

    Args:
      query: float [3, 3], homography of the query view: facade pixels to image pixels.
      query_box: float [4], (x1, y1, x2, y2) in pixels.
      index: float [3, 3], homography of the index view.
      index_visible: visible share of the facade in the index view.

    Returns:
      `easy`, `hard` or `junk`.
    """
    if index_visible < JUNK_VISIBLE:
        return "junk"
    middle = (query_box[:2] + query_box[2:]) / 2
    scale, tilt = scale_and_tilt(homography_between(query, index), middle)
    near = 1 / EASY_SCALE <= scale <= EASY_SCALE
    return "easy" if index_visible >= EASY_VISIBLE and near and tilt <= EASY_TILT else "hard"
