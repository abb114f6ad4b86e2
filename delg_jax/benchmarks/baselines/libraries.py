"""The kernels in NumPy, as a careful user would write them."""

import numpy as np


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
