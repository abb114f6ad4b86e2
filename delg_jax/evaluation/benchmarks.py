"""Benchmarks: each kernel beside a peer, on the same inputs, in turn."""

import functools
import os
import platform
import statistics
import time
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import UserError, require_choice
from delg_jax.evaluation import extraction_bench, peers, ransac_peers
from delg_jax.evaluation.contenders import Contender, Pair
from delg_jax.features.local_features import LocalFeatures
from delg_jax.rerank import SpatialSettings, mds, spatial_verification
from delg_jax.search import SimilarityKernel, global_search, local_search

# From descriptors of query and image and a distance to neighbours and which of them are matches.
_Match = Callable[[np.ndarray, np.ndarray, float], tuple[np.ndarray, np.ndarray]]
# From matched points, source and target, to the number of inliers.
_Count = Callable[[np.ndarray, np.ndarray], int]

_PEAK_SIDES = {"cpu": 1024}  # of the matrices whose product is taken for the peak

SIZES = {
    "global": {
        "standard": {"queries": 70, "images": 50_000, "dim": 512, "count": 100},
        "tiny": {"queries": 3, "images": 50, "dim": 8, "count": 5},
    },
    "local": {
        "standard": {"queries": 4, "images": 256, "features": 200, "dim": 128},
        "tiny": {"queries": 2, "images": 3, "features": 5, "dim": 8},
    },
    "verify": {
        "standard": {"pairs": 20, "peer_pairs": 2, "features": 1000, "dim": 128},
        "tiny": {"pairs": 2, "peer_pairs": 1, "features": 12, "dim": 8},
    },
    "verify_opencv": {
        "standard": {"pairs": 100, "peer_pairs": 20, "features": 1000, "dim": 128},
        "tiny": {"pairs": 2, "peer_pairs": 1, "features": 12, "dim": 8},
    },
    "verify_official": {
        "standard": {"pairs": 100, "peer_pairs": 2, "features": 1000, "dim": 128},
        "tiny": {"pairs": 2, "peer_pairs": 1, "features": 12, "dim": 8},
    },
    "mds": {
        "standard": {"images": 400, "dim": 128},
        "tiny": {"images": 12, "dim": 4},
    },
    **{name: extraction_bench.SIZES for name in extraction_bench.VARIANTS},
}


def bench(name: str, repeats: int = 5, size: str = "standard") -> dict[str, Any]:
    """Times a kernel beside its peer.

    Both are called once to warm up; then they take turns, so that a change of the machine's load
    meets both.

    Args:
      name: a key of `SIZES`.
      repeats: timed calls of each.
      size: a key of `SIZES[name]`.

    Returns:
      `name`, `size` (the numbers behind it), `unit`, `repeats`, `machine`, `ratio` (the peer's
      median over ours, above 1 where ours is faster), and `ours` and `peer`, each with `name`,
      `first_call_seconds` (with compilation), `seconds` of every call per unit, their `median`,
      `spread` (interquartile range) and `units_per_second`. Where operations are counted,
      `operations` too: `per_unit`, `per_second` by ours, `peak` (a second, of a large matrix
      product) and `share` (of the peak).

    Raises:
      UserError: for an unknown name or size, or no repeats.
    """
    require_choice("delg bench", name, tuple(SIZES))
    require_choice("--size", size, tuple(SIZES[name]))
    if repeats < 1:
        raise UserError("--repeats", repeats, "must be at least 1")
    numbers = SIZES[name][size]
    pair = _PAIRS[name](np.random.default_rng(0), **numbers)
    contenders = (pair.ours, pair.peer)
    first = [_seconds(contender.call) for contender in contenders]
    times: tuple[list[float], list[float]] = ([], [])
    for _ in range(repeats):
        for contender, found in zip(contenders, times, strict=True):
            found.append(_seconds(contender.call) / contender.units)
    ours, peer = (
        _summary(contender.name, once, found)
        for contender, once, found in zip(contenders, first, times, strict=True)
    )
    counted = {}
    if pair.operations is not None:
        counted["operations"] = _utilization(pair.operations, ours["median"], pair.dtype)
    return {
        "name": name,
        "size": numbers,
        "unit": pair.unit,
        "repeats": repeats,
        "ours": ours,
        "peer": peer,
        "ratio": peer["median"] / ours["median"],
        **counted,
        "machine": _machine(),
    }


def _seconds(call: Callable[[], Any]) -> float:
    start = time.perf_counter()
    call()
    return time.perf_counter() - start


def _summary(name: str, first: float, seconds: list[float]) -> dict[str, Any]:
    low, high = np.percentile(seconds, [25, 75])
    return {
        "name": name,
        "first_call_seconds": first,
        "seconds": seconds,
        "median": statistics.median(seconds),
        "spread": float(high - low),
        "units_per_second": 1.0 / statistics.median(seconds),
    }


def _utilization(operations: float, seconds: float, dtype: str) -> dict[str, float]:
    side = _PEAK_SIDES.get(jax.default_backend(), 8192)
    matrix = jnp.ones((side, side), dtype)
    product = jax.jit(jnp.dot)
    product(matrix, matrix).block_until_ready()
    fastest = min(_seconds(lambda: product(matrix, matrix).block_until_ready()) for _ in range(5))
    peak, rate = 2.0 * side**3 / fastest, operations / seconds
    return {"per_unit": operations, "per_second": rate, "peak": peak, "share": rate / peak}


def _machine() -> dict[str, Any]:
    return {
        "device": jax.devices()[0].device_kind,
        "devices": jax.device_count(),
        "cpus": os.cpu_count(),
        "load": os.getloadavg()[0] if hasattr(os, "getloadavg") else None,  # of the last minute
        "python": platform.python_version(),
        "jax": jax.__version__,
        "numpy": np.__version__,
    }


def _unit_vectors(rng: np.random.Generator, *shape: int) -> np.ndarray:
    vectors = rng.standard_normal(shape, np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _global(rng: np.random.Generator, queries: int, images: int, dim: int, count: int) -> Pair:
    asked, database = _unit_vectors(rng, queries, dim), _unit_vectors(rng, images, dim)
    return Pair(
        "query",
        Contender("global_search", lambda: global_search.search(asked, database, count), queries),
        Contender("matmul, argpartition", lambda: peers.top_k(asked, database, count), queries),
    )


def _local(rng: np.random.Generator, queries: int, images: int, features: int, dim: int) -> Pair:
    asked, database = (_unit_vectors(rng, n, features, dim) for n in (queries, images))
    asked_mask, mask = (np.ones((n, features), bool) for n in (queries, images))
    kernel = SimilarityKernel("threshold", 0.5)
    rows, columns = asked.reshape(-1, dim), database.reshape(-1, dim)

    def products() -> None:
        for start in range(0, len(rows), features):  # as ours, one query at a time
            rows[start : start + features] @ columns.T

    def ours() -> np.ndarray:
        return local_search.similarity(asked, asked_mask, database, mask, kernel)

    return Pair(
        "query",
        Contender("local_search", ours, queries),
        Contender("its matrix product alone", products, queries),
    )


def _verify(
    make_peer: Callable[[SpatialSettings], tuple[str, _Match, _Count]],
    rng: np.random.Generator,
    pairs: int,
    peer_pairs: int,
    features: int,
    dim: int,
) -> Pair:
    """Images with half of the query's features, two thirds of these moved to anywhere."""
    settings = SpatialSettings()
    title, match, count = make_peer(settings)
    query = _unit_vectors(rng, features, dim)
    places = rng.uniform(0, 1000, (features, 2)).astype(np.float32)
    images = np.repeat(query[None], pairs, axis=0)
    images[:, ::2] = _unit_vectors(rng, pairs, len(query[::2]), dim)
    moved = np.repeat(0.8 * places[None] + 30, pairs, axis=0).astype(np.float32)
    moved[:, ::3] = rng.uniform(0, 1000, moved[:, ::3].shape)
    moved[:, 1::3] = rng.uniform(0, 1000, moved[:, 1::3].shape)
    ids, key = np.arange(pairs), jax.random.key(0)

    def ours() -> np.ndarray:
        return spatial_verification.verify(
            _features(query, places), _features(images, moved), ids, key, settings
        )

    def peer() -> list[int]:
        found = []
        for image, locations in zip(images[:peer_pairs], moved, strict=False):
            index, valid = match(query, image, settings.max_distance)
            found.append(count(locations[index[valid]], places[valid]))
        return found

    return Pair(
        "image pair",
        Contender("spatial_verification", ours, pairs),
        Contender(title, peer, peer_pairs),
    )


def _by_numpy(settings: SpatialSettings) -> tuple[str, _Match, _Count]:
    draws = np.random.default_rng(0)

    def count(source: np.ndarray, target: np.ndarray) -> int:
        return peers.ransac(source, target, settings.hypotheses, settings.residual, draws)

    return "NumPy matching and RANSAC loop", peers.match, count


def _by_opencv(settings: SpatialSettings) -> tuple[str, _Match, _Count]:
    ransac = ransac_peers.opencv(settings.model, settings.hypotheses, settings.residual)
    return "NumPy matching, OpenCV RANSAC", peers.match, lambda *sides: int(ransac(*sides).sum())


def _as_official(settings: SpatialSettings) -> tuple[str, _Match, _Count]:
    ransac = ransac_peers.scikit_image(settings.model, settings.hypotheses, settings.residual)
    title = "SciPy k-d tree, scikit-image RANSAC"
    return title, ransac_peers.match_by_tree, lambda *sides: int(ransac(*sides).sum())


def _features(descriptors: np.ndarray, locations: np.ndarray) -> LocalFeatures:
    ones = np.ones(descriptors.shape[:-1], np.float32)
    return LocalFeatures(locations, ones, ones, descriptors, ones.astype(bool))


def _mds(rng: np.random.Generator, images: int, dim: int) -> Pair:
    vectors = _unit_vectors(rng, images, dim)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * vectors @ vectors.T, 0.0)).astype(np.float32)
    return Pair(
        "short list",
        Contender("classical_mds", lambda: np.asarray(mds.classical_mds(distances, dim)), 1),
        Contender("centring, eigh", lambda: peers.classical_mds(distances, dim), 1),
    )


_PAIRS = {
    "global": _global,
    "local": _local,
    "verify": functools.partial(_verify, _by_numpy),
    "verify_opencv": functools.partial(_verify, _by_opencv),
    "verify_official": functools.partial(_verify, _as_official),
    "mds": _mds,
    **{
        name: functools.partial(extraction_bench.pair, *variant)
        for name, variant in extraction_bench.VARIANTS.items()
    },
}
