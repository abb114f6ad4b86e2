"""Local search by one bit of each dimension."""

import jax
import numpy as np

from delg_jax.benchmarks.baselines import faiss_search
from delg_jax.benchmarks.case import Bench, Comparison, Contender, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.search import SimilarityKernel, binary, engines

_KERNEL = SimilarityKernel("threshold", 0.3)


def compare(
    rng: np.random.Generator,
    queries: int,
    peer_queries: int,
    images: int,
    features: int,
    dim: int,
    nearest: int,
) -> Comparison:
    """Signs of the queries and the database of `benches.local`."""
    sides = vectors.places(rng, queries, images, features, dim)
    asked, database = (vectors.aligned(np.asarray(binary.binarize(side))) for side in sides)
    asked_mask, mask = (np.ones(side.shape[:2], bool) for side in (asked, database))

    def ours(hamming: str) -> Contender:
        exact = engines.exact(database, mask, _KERNEL, hamming=hamming)
        return Contender(f"local_search, {hamming}", lambda: exact(asked, asked_mask), queries)

    def vote(distances: np.ndarray) -> np.ndarray:
        cosines = 1.0 - 2.0 * distances.astype(np.float32) / dim
        return np.where(cosines > _KERNEL.threshold, cosines, 0.0)

    def faiss() -> Contender:
        """Votes of the nearest signs."""
        index = faiss_search.flat_bits(database.reshape(-1, dim // 8))

        def search() -> list[np.ndarray]:
            return [
                faiss_search.voted(index, query, features, images, nearest, vote)
                for query in asked[:peer_queries]
            ]

        return Contender(f"faiss IndexBinaryFlat, {nearest} nearest, vote", search, peer_queries)

    ways = [ours(hamming) for hamming in binary.HAMMING]
    if jax.default_backend() != "cpu":
        ways.reverse()
    return Comparison(
        "query",
        ways[0],
        {"faiss": faiss},
        tuple(ways[1:]),
        Work(bytes=database.nbytes / queries),
    )


BENCHES = {
    "binary": Bench(
        compare,
        {
            "standard": {
                "queries": 16,
                "peer_queries": 1,
                "images": 1600,
                "features": 300,
                "dim": 128,
                "nearest": 1000,
            },
            "gpu": {
                "queries": 64,
                "peer_queries": 2,
                "images": 1600,
                "features": 300,
                "dim": 128,
                "nearest": 1000,
            },
            "tiny": {
                "queries": 2,
                "peer_queries": 1,
                "images": 5,
                "features": 6,
                "dim": 16,
                "nearest": 10,
            },
        },
    )
}
