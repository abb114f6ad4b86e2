"""Repeatability and matching score of local features, on two photographs of a plane.

Measures of Mikolajczyk et al., "A Comparison of Affine Region Detectors", IJCV 2005, with points
instead of regions, as on HPatches (Balntas et al., CVPR 2017): two features correspond if the true
homography maps one to within a few pixels of the other.
"""

from typing import NamedTuple

import jax
import numpy as np

from delg_jax.data.synthetic.camera import transform
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings
from delg_jax.rerank.spatial_verification import verify_pair

TOLERANCE = 5.0  # pixels of the second photograph

Area = tuple[float, float, float, float]


class Pair(NamedTuple):
    """Two photographs.

    Attributes:
      first: features of one image, [K1].
      second: features of the other, [K2].
      homography: float [3, 3], true homography of (x, y, 1) from the first to the second; the third
        component is positive where the second sees the point.
      first_area: (x1, y1, x2, y2), where the first shows the plane, in pixels.
      second_area: the same of the second.
    """

    first: LocalFeatures
    second: LocalFeatures
    homography: np.ndarray
    first_area: Area
    second_area: Area


class Measures(NamedTuple):
    """Quality of local features on a pair.

    Attributes:
      repeatability: see `repeatability`.
      matching_score: see `matching_score`.
      correct: whether each inlier of spatial verification is correct, bool [inliers].
    """

    repeatability: float
    matching_score: float
    correct: np.ndarray


def measure(pair: Pair, settings: SpatialSettings, tolerance: float = TOLERANCE) -> Measures:
    """Computes all measures of a pair; `settings` are for spatial verification."""
    return Measures(
        repeatability(pair, tolerance),
        matching_score(pair, tolerance),
        correct_inliers(pair, settings, tolerance),
    )


def repeatability(pair: Pair, tolerance: float = TOLERANCE) -> float:
    """Share of the features that are found in both photographs.

    Only features in the area that both photographs show count. Mutual nearest neighbours at most
    `tolerance` pixels apart correspond.

    Args:
      pair: the photographs.
      tolerance: pixels of the second photograph.

    Returns:
      Correspondences over the smaller of the two numbers of features; NaN if it is 0.
    """
    first, second = _shared(pair)
    if not (len(first) and len(second)):
        return float("nan")
    distances = _distances(pair, first, second)
    here, there = distances.argmin(axis=1), distances.argmin(axis=0)
    mutual = there[here] == np.arange(len(first))
    near = distances.min(axis=1) <= tolerance
    return float((mutual & near).sum() / min(distances.shape))


def matching_score(pair: Pair, tolerance: float = TOLERANCE) -> float:
    """Share of the features whose nearest descriptor in the second photograph is correct.

    Args:
      pair: the photographs; only features in the area that both show count.
      tolerance: pixels of the second photograph within which a match is correct.

    Returns:
      Correct matches over the features of the first photograph; NaN if there are none, 0 if the
      second has none to match.
    """
    first, second = _shared(pair)
    if not (len(first) and len(second)):
        return float("nan") if not len(first) else 0.0
    here = np.asarray(pair.first.descriptors, np.float32)[first]
    there = np.asarray(pair.second.descriptors, np.float32)[second]
    matches = np.stack([first, second[(here @ there.T).argmax(axis=1)]], axis=1)
    return float(correct_matches(pair, matches, tolerance).mean())


def correct_inliers(
    pair: Pair, settings: SpatialSettings, tolerance: float = TOLERANCE
) -> np.ndarray:
    """Verifies the first photograph as a candidate for the second, which is the query.

    Args:
      pair: the photographs.
      settings: of spatial verification.
      tolerance: pixels of the second photograph.

    Returns:
      For each inlier whether it is correct, bool [inliers].
    """
    found = verify_pair(pair.second, pair.first, jax.random.key(0), settings)
    return correct_matches(pair, found.matches[found.inlier_mask][:, ::-1], tolerance)


def correct_matches(pair: Pair, matches: np.ndarray, tolerance: float = TOLERANCE) -> np.ndarray:
    """Whether the true homography maps one feature of a match to the other.

    Args:
      pair: the photographs.
      matches: int [L, 2], features of the first and of the second.
      tolerance: pixels of the second photograph.

    Returns:
      bool [L]; False behind the camera of the second photograph.
    """
    expected = transform(pair.homography, _points(pair.first)[matches[:, 0]])
    found = _points(pair.second)[matches[:, 1]]
    return np.linalg.norm(expected - found, axis=1) <= tolerance


def _shared(pair: Pair) -> tuple[np.ndarray, np.ndarray]:
    """Indices, int [n], of the features of each side in the area that both photographs show."""
    sides = (
        (pair.first, pair.homography, pair.first_area, pair.second_area),
        (pair.second, np.linalg.inv(pair.homography), pair.second_area, pair.first_area),
    )
    kept = []
    for features, homography, own, other in sides:
        points = _points(features)
        inside = _inside(points, own) & _inside(transform(homography, points), other)
        kept.append(np.flatnonzero(np.asarray(features.mask) & inside))
    return kept[0], kept[1]


def _distances(pair: Pair, first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Pixels of the second photograph between features, [n1, n2]."""
    mapped = transform(pair.homography, _points(pair.first)[first])
    found = _points(pair.second)[second]
    return np.linalg.norm(mapped[:, None, :] - found[None, :, :], axis=2)


def _points(features: LocalFeatures) -> np.ndarray:
    """Locations (x, y), float64 [K, 2]."""
    return np.asarray(features.locations, np.float64)[:, ::-1]


def _inside(points: np.ndarray, area: Area) -> np.ndarray:
    low, high = np.asarray(area[:2])[None, :], np.asarray(area[2:])[None, :]
    inside = (points >= low) & (points <= high)  # NaN is outside
    return np.all(inside, axis=1)
