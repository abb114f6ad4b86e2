"""Spatial verification of a query against its candidates."""

import concurrent.futures
import os
from collections.abc import Callable

import jax
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.benchmarks.peers import libraries
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import spatial_verification
from delg_jax.rerank.spatial_verification import SpatialSettings

_SIDE = 1000.0  # of a square image, pixels
# From descriptors of query and image and a distance, to the nearest neighbours and which match
_Match = Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
# From matched points, source and target, to the number of inliers
_Count = Callable[[np.ndarray, np.ndarray], int]


def compare(
    rng: np.random.Generator,
    pairs: int,
    peer_pairs: int,
    slow_pairs: int,
    features: int,
    dim: int,
    pair_block: int,
) -> Comparison:
    """Compares verification of images with half of the query's features.

    Of these, a third is consistent with one affine map. Peers do fewer pairs, the slow ones only a
    few; times are per pair.
    """
    settings = SpatialSettings(pair_block=pair_block)
    query, candidates = _planted(rng, pairs, features, dim)
    ids, key = np.arange(pairs), jax.random.key(0)

    def peer(
        name: str, match: _Match, count: _Count, some: int, threads: int = 1
    ) -> Implementation:
        """Matches the first pairs and counts their inliers with the functions of a peer."""

        def one(pair: int) -> int:
            descriptors = np.asarray(candidates.descriptors[pair])
            locations = np.asarray(candidates.locations[pair])
            index, valid = match(np.asarray(query.descriptors), descriptors, settings.max_distance)
            return count(locations[index[valid]], np.asarray(query.locations)[valid])

        def each() -> list[int]:
            with concurrent.futures.ThreadPoolExecutor(threads) as pool:
                return list(pool.map(one, range(some)))

        return Implementation(name, each, some)

    def numpy() -> Implementation:
        generator, threshold = np.random.default_rng(0), settings.inlier_threshold

        def count(source: np.ndarray, target: np.ndarray) -> int:
            return libraries.ransac(source, target, settings.hypotheses, threshold, generator)

        return peer("NumPy matching and RANSAC loop", libraries.match, count, slow_pairs)

    def opencv() -> Implementation:
        ransac = libraries.opencv(settings.model, settings.hypotheses, settings.inlier_threshold)
        name = "NumPy matching, OpenCV RANSAC, all cores"
        return peer(name, libraries.match, _inlier_count(ransac), peer_pairs, os.cpu_count() or 1)

    def official() -> Implementation:
        ransac = libraries.scikit_image(
            settings.model, settings.hypotheses, settings.inlier_threshold
        )
        name = "SciPy k-d tree, scikit-image RANSAC"
        return peer(name, libraries.match_by_tree, _inlier_count(ransac), slow_pairs)

    def ours() -> np.ndarray:
        return spatial_verification.verify(query, candidates, ids, key, settings)

    return Comparison(
        "image pair",
        Implementation("spatial_verification", ours, pairs),
        {"numpy": numpy, "opencv": opencv, "official": official},
        work=Work(2.0 * features * features * dim, candidates.descriptors.nbytes / pairs),
    )


def _planted(
    rng: np.random.Generator, pairs: int, features: int, dim: int
) -> tuple[LocalFeatures, LocalFeatures]:
    """Returns features of the query [K, ...] and of the candidates [M, K, ...]."""
    query, images = vectors.unit(rng, features, dim), vectors.unit(rng, pairs, features, dim)
    images[:, 1::2] = query[None, 1::2]
    places = rng.uniform(0, _SIDE, (features, 2)).astype(np.float32)
    moved = np.repeat(0.8 * places[None] + 30, pairs, axis=0).astype(np.float32)
    moved[:, ::3] = rng.uniform(0, _SIDE, moved[:, ::3].shape)
    moved[:, 1::3] = rng.uniform(0, _SIDE, moved[:, 1::3].shape)
    return _features(query, places), _features(images, moved)


def _inlier_count(ransac: libraries.Ransac) -> _Count:
    return lambda source, target: int(ransac(source, target).sum())


def _features(descriptors: np.ndarray, locations: np.ndarray) -> LocalFeatures:
    ones = np.ones(descriptors.shape[:-1], np.float32)
    return LocalFeatures(locations, ones, ones, descriptors, ones.astype(bool))


_FULL = {"features": 1000, "dim": 128}
CASES = {
    "verify": Case(
        compare,
        {
            "standard": {
                "pairs": 100,
                "peer_pairs": 40,
                "slow_pairs": 2,
                "pair_block": 10,
                **_FULL,
            },
            "gpu": {"pairs": 4000, "peer_pairs": 400, "slow_pairs": 2, "pair_block": 500, **_FULL},
            "tiny": {
                "pairs": 2,
                "peer_pairs": 2,
                "slow_pairs": 1,
                "pair_block": 2,
                "features": 12,
                "dim": 8,
            },
        },
    )
}
