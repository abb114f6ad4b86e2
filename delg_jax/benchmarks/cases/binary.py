"""Local search on one bit per dimension."""

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.benchmarks.peers import libraries
from delg_jax.search import SimilarityKernel, descriptor_similarity, engines

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
    """Compares searches for the signs of the queries and database of the case `local`."""
    query_codes, database = (
        vectors.aligned(np.asarray(descriptor_similarity.binarize(jnp.asarray(descriptors))))
        for descriptors in vectors.places(rng, queries, images, features, dim)
    )
    query_mask, mask = (np.ones(codes.shape[:2], bool) for codes in (query_codes, database))

    def ours(hamming: str) -> Implementation:
        exact = engines.exact(database, mask, _KERNEL, hamming=hamming)
        return Implementation(
            f"local_search, {hamming}", lambda: exact(query_codes, query_mask), queries
        )

    def vote(distances: np.ndarray) -> np.ndarray:
        similarities = 1.0 - 2.0 * distances.astype(np.float32) / dim
        return np.where(similarities > _KERNEL.threshold, similarities, 0.0)

    def faiss() -> Implementation:
        """Votes of the nearest codes."""
        index = libraries.flat_bits(database.reshape(-1, dim // 8))

        def search() -> list[np.ndarray]:
            return [
                libraries.voted(index, query, features, images, nearest, vote)
                for query in query_codes[:peer_queries]
            ]

        return Implementation(
            f"faiss IndexBinaryFlat, {nearest} nearest, vote", search, peer_queries
        )

    variants = [ours(hamming) for hamming in descriptor_similarity.HAMMING]
    if jax.default_backend() != "cpu":
        variants.reverse()  # there products are the default
    return Comparison(
        "query",
        variants[0],
        {"faiss": faiss},
        tuple(variants[1:]),
        Work(bytes=database.nbytes / queries),
    )


CASES = {
    "binary": Case(
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
