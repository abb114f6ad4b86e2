"""Similarity embeddings: MDS of short lists."""

import functools
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work, import_peer
from delg_jax.benchmarks.cases import vectors
from delg_jax.benchmarks.peers import libraries
from delg_jax.rerank.mds_solvers import classical_mds, smacof

_MISSING = 0.5  # share of the pairs of a short list


def compare(
    rng: np.random.Generator,
    queries: int,
    peer_queries: int,
    points: int,
    dim: int,
    iterations: int,
    block: int,
) -> Comparison:
    """Compares embeddings of short lists in which half of the similarities are missing.

    Peers do fewer queries, scikit-learn a single one; times are per query.
    """
    lists = [random_distances(rng, points, dim) for _ in range(queries)]
    some = lists[:peer_queries]

    def sklearn() -> Implementation:
        """SMACOF from one start, with its own stopping rule."""
        manifold = import_peer("sklearn.manifold", "scikit-learn")
        options = {"n_components": dim, "n_init": 1, "normalized_stress": False}
        search = functools.partial(manifold.smacof, **options, random_state=0)
        taken = search(lists[0], return_n_iter=True)[2]
        name = f"scikit-learn SMACOF, {taken} iterations"
        return Implementation(name, lambda: search(lists[0])[0], 1)

    def numpy() -> Implementation:
        def call() -> list[np.ndarray]:
            return [libraries.classical_mds(distances, dim) for distances in some]

        return Implementation("NumPy centring, eigh", call, peer_queries)

    return Comparison(
        "query",
        _classical(lists, dim, block),
        {"numpy": numpy, "sklearn": sklearn},
        (_smacof(some, dim, iterations),),
        # Reduction to tridiagonal form, and back-transformation of the eigenvectors
        Work(4.0 / 3.0 * points**3 + 2.0 * points**2 * dim, lists[0].nbytes),
    )


def _classical(lists: Sequence[np.ndarray], dim: int, block: int) -> Implementation:
    """Classical MDS of blocks of lists."""
    embed = jax.jit(jax.vmap(functools.partial(classical_mds, dim=dim)))

    def call() -> list[np.ndarray]:
        starts = range(0, len(lists), block)
        return [np.asarray(embed(np.stack(lists[start : start + block]))) for start in starts]

    return Implementation("classical MDS, eigh", call, len(lists))


def _smacof(lists: Sequence[np.ndarray], dim: int, iterations: int) -> Implementation:
    """SMACOF of one list after the other, starting from classical MDS."""
    weights = np.ones(lists[0].shape, np.float32)

    def call() -> list[np.ndarray]:
        starts = (classical_mds(distances, dim) for distances in lists)
        return [
            np.asarray(smacof(jnp.asarray(distances), weights, start, iterations))
            for distances, start in zip(lists, starts, strict=True)
        ]

    return Implementation(f"SMACOF, {iterations} iterations", call, len(lists))


def random_distances(rng: np.random.Generator, points: int, dim: int) -> np.ndarray:
    """Returns distances float32 [n, n] of unit vectors, sqrt(2) where the similarity is missing."""
    rows = vectors.unit(rng, points, dim)
    similarities = np.maximum(rows @ rows.T, 0.0)
    similarities[rng.random(similarities.shape) < _MISSING] = 0.0
    similarities = np.maximum(similarities, similarities.T)
    distances = np.sqrt(np.maximum(2.0 - 2.0 * similarities, 0.0))
    np.fill_diagonal(distances, 0.0)
    return distances.astype(np.float32)


CASES = {
    "mds": Case(
        compare,
        {
            "standard": {
                "queries": 8,
                "peer_queries": 2,
                "points": 701,
                "dim": 128,
                "iterations": 30,
                "block": 8,
            },
            "gpu": {
                "queries": 64,
                "peer_queries": 4,
                "points": 701,
                "dim": 128,
                "iterations": 30,
                "block": 64,
            },
            "tiny": {
                "queries": 2,
                "peer_queries": 1,
                "points": 12,
                "dim": 4,
                "iterations": 3,
                "block": 2,
            },
        },
    )
}
