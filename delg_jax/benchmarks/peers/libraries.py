"""The kernels in NumPy, SciPy, faiss, scikit-image and OpenCV."""

import os
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np

from delg_jax.benchmarks.case import import_peer

# From source and target float [K, 2] to the inliers, bool [K].
Ransac = Callable[[np.ndarray, np.ndarray], np.ndarray]

_CONFIDENCE = 1 - 1e-12  # so high that OpenCV hardly ever stops before the last trial
_SAMPLE_SIZE = {"affine": 3, "homography": 4}


def top_k(queries: np.ndarray, database: np.ndarray, count: int) -> np.ndarray:
    """Returns indices int [Q, count] of the largest inner products, best first."""
    products = queries @ database.T
    chosen = np.argpartition(-products, count - 1, axis=1)[:, :count]
    values = np.take_along_axis(products, chosen, axis=1)
    return np.take_along_axis(chosen, np.argsort(-values, axis=1, kind="stable"), axis=1)


def match(
    query: np.ndarray, image: np.ndarray, max_distance: float
) -> tuple[np.ndarray, np.ndarray]:
    """Returns nearest neighbours int [Kq] of unit vectors in [K, D], and which are near enough."""
    similarities = query @ image.T
    index = similarities.argmax(axis=1)
    return index, similarities.max(axis=1) > 1.0 - 0.5 * max_distance**2


def ransac(
    source: np.ndarray,
    target: np.ndarray,
    hypotheses: int,
    inlier_threshold: float,
    rng: np.random.Generator,
) -> int:
    """Counts the inliers of the best affine hypothesis.

    Args:
      source: float [K, 2], points in pixels.
      target: float [K, 2], the points they are matched with.
      hypotheses: samples of three matches to draw.
      inlier_threshold: largest error of an inlier, pixels.
      rng: random generator.

    Returns:
      The number; 0 for fewer than four matches.
    """
    if len(source) < 4:
        return 0
    points = np.concatenate([source, np.ones((len(source), 1), source.dtype)], axis=1)
    best = 0
    for _ in range(hypotheses):
        sample = rng.choice(len(source), 3, replace=False)
        try:
            model = np.linalg.solve(points[sample], target[sample])
        except np.linalg.LinAlgError:  # the three lie on a line
            continue
        errors = np.square(points @ model - target).sum(axis=1)
        best = max(best, int((errors < inlier_threshold**2).sum()))
    return best


def classical_mds(distances: np.ndarray, dim: int) -> np.ndarray:
    """Returns points [n, dim] with distances [n, n], by double centring and `eigh`."""
    squares = distances**2
    gram = squares - squares.mean(axis=0)[None, :] - squares.mean(axis=1)[:, None] + squares.mean()
    values, vectors = np.linalg.eigh(-0.5 * gram)
    return vectors[:, ::-1][:, :dim] * np.sqrt(np.maximum(values[::-1][:dim], 0.0))[None, :]


def flat(database: np.ndarray) -> Any:
    """Returns an IndexFlatIP of the rows float32 [N, D]."""
    faiss = _faiss()
    index = faiss.IndexFlatIP(database.shape[1])
    index.add(database)
    return index


def flat_bits(database: np.ndarray) -> Any:
    """Returns an IndexBinaryFlat of the rows uint8 [N, D / 8]."""
    faiss = _faiss()
    index = faiss.IndexBinaryFlat(8 * database.shape[1])
    index.add(database)
    return index


def voted(
    index: Any,
    query: np.ndarray,
    features: int,
    images: int,
    nearest: int,
    vote: Callable[[np.ndarray], np.ndarray],
) -> np.ndarray:
    """Computes the similarity to every image from the nearest features of each query feature.

    It is below the exact similarity where an image's best feature is not among the nearest.

    Args:
      index: of the features of the images, image after image.
      query: features [Kq, ...].
      features: per image.
      images: N.
      nearest: number of neighbours to search for.
      vote: from the values that the index returns [Kq, nearest] to votes.

    Returns:
      float32 [N].
    """
    found, rows = index.search(query, nearest)
    owners = np.arange(len(query))[:, None] * images + rows // features
    # Neighbours come best first; the first of an image is its best feature
    codes, first = np.unique(owners.ravel(), return_index=True)
    votes = vote(found).ravel()[first]
    return np.bincount(codes % images, votes, images).astype(np.float32) / len(query)


def _faiss() -> Any:
    faiss = import_peer("faiss", "faiss-cpu")
    faiss.omp_set_num_threads(os.cpu_count() or 1)
    return faiss


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
