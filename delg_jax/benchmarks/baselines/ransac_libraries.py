"""Verification as other libraries do it: SciPy's k-d tree, scikit-image's and OpenCV's RANSAC."""

import warnings
from collections.abc import Callable

import numpy as np

from delg_jax.benchmarks.case import installed

# From source and target float [K, 2] to the inliers, bool [K].
Ransac = Callable[[np.ndarray, np.ndarray], np.ndarray]

_CERTAIN = 1 - 1e-12  # OpenCV stops before the last trial only if it is as sure as this
_SAMPLES = {"affine": 3, "homography": 4}


def match_by_tree(
    query: np.ndarray, image: np.ndarray, max_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matches as the official code does; arguments and result as of `peers.match`."""
    spatial = installed("scipy.spatial", "scipy")
    tree = spatial.cKDTree(image)
    distance, index = tree.query(query, distance_upper_bound=max_distance)
    near = np.isfinite(distance)
    return np.where(near, index, 0), near


def opencv(model: str, trials: int, inlier_threshold: float) -> Ransac:
    """OpenCV's `estimateAffine2D` or `findHomography`.

    Args:
      model: affine or homography.
      trials: hypotheses.
      inlier_threshold: pixels.

    Returns:
      The RANSAC; nothing is an inlier where it fails.

    Raises:
      Unavailable: if OpenCV is not installed.
    """
    cv2 = installed("cv2", "opencv-python-headless")
    fit = {"affine": cv2.estimateAffine2D, "homography": cv2.findHomography}[model]

    def inliers(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Inliers of one pair."""
        if len(source) <= _SAMPLES[model]:
            return np.zeros(len(source), bool)
        _, mask = fit(
            source,
            target,
            method=cv2.RANSAC,
            ransacReprojThreshold=inlier_threshold,
            maxIters=trials,
            confidence=_CERTAIN,
        )
        return np.zeros(len(source), bool) if mask is None else mask[:, 0] > 0

    return inliers


def scikit_image(model: str, trials: int, inlier_threshold: float) -> Ransac:
    """scikit-image's `ransac`, as the official code calls it; see `opencv`."""
    measure = installed("skimage.measure", "scikit-image")
    transform = installed("skimage.transform", "scikit-image")
    names = {"affine": "AffineTransform", "homography": "ProjectiveTransform"}
    kind = getattr(transform, names[model])

    def inliers(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Inliers of one pair."""
        if len(source) <= _SAMPLES[model]:
            return np.zeros(len(source), bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of samples that fit nothing
            _, mask = measure.ransac(
                (source, target), kind, _SAMPLES[model], inlier_threshold, max_trials=trials, rng=0
            )
        return np.zeros(len(source), bool) if mask is None else mask

    return inliers
