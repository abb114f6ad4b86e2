"""Matching with SciPy's k-d tree, and RANSAC of scikit-image and OpenCV."""

import warnings
from collections.abc import Callable

import numpy as np

from delg_jax.benchmarks.case import import_peer

# From source and target float [K, 2] to the inliers, bool [K].
Ransac = Callable[[np.ndarray, np.ndarray], np.ndarray]

_CONFIDENCE = 1 - 1e-12  # so high that OpenCV hardly ever stops before the last trial
_SAMPLE_SIZE = {"affine": 3, "homography": 4}


def match_by_tree(
    query: np.ndarray, image: np.ndarray, max_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Matches as the official code does; arguments and result are those of `libraries.match`."""
    spatial = import_peer("scipy.spatial", "scipy")
    tree = spatial.cKDTree(image)
    distance, index = tree.query(query, distance_upper_bound=max_distance)
    near = np.isfinite(distance)
    return np.where(near, index, 0), near


def opencv(model: str, trials: int, inlier_threshold: float) -> Ransac:
    """Returns OpenCV's `estimateAffine2D` or `findHomography`.

    Args:
      model: affine or homography.
      trials: hypotheses.
      inlier_threshold: pixels.

    Returns:
      The RANSAC; if it fails, nothing is an inlier.

    Raises:
      Unavailable: if OpenCV is not installed.
    """
    cv2 = import_peer("cv2", "opencv-python-headless")
    fit = {"affine": cv2.estimateAffine2D, "homography": cv2.findHomography}[model]

    def inliers(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Returns the inliers of one pair."""
        if len(source) <= _SAMPLE_SIZE[model]:
            return np.zeros(len(source), bool)
        _, mask = fit(
            source,
            target,
            method=cv2.RANSAC,
            ransacReprojThreshold=inlier_threshold,
            maxIters=trials,
            confidence=_CONFIDENCE,
        )
        return np.zeros(len(source), bool) if mask is None else mask[:, 0] > 0

    return inliers


def scikit_image(model: str, trials: int, inlier_threshold: float) -> Ransac:
    """Returns scikit-image's `ransac` as the official code calls it; see `opencv`."""
    measure = import_peer("skimage.measure", "scikit-image")
    transform = import_peer("skimage.transform", "scikit-image")
    names = {"affine": "AffineTransform", "homography": "ProjectiveTransform"}
    kind = getattr(transform, names[model])

    def inliers(source: np.ndarray, target: np.ndarray) -> np.ndarray:
        """Returns the inliers of one pair."""
        if len(source) <= _SAMPLE_SIZE[model]:
            return np.zeros(len(source), bool)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about degenerate samples
            _, mask = measure.ransac(
                (source, target),
                kind,
                _SAMPLE_SIZE[model],
                inlier_threshold,
                max_trials=trials,
                rng=0,
            )
        return np.zeros(len(source), bool) if mask is None else mask

    return inliers
