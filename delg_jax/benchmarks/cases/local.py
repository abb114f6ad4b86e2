"""Local search: exact Chamfer similarity, the approximate engines, and one bit per dimension."""

import functools
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.benchmarks.peers import libraries
from delg_jax.search import SimilarityKernel, cann, descriptor_similarity, engines, ivf
from delg_jax.search.cann import GridSettings
from delg_jax.search.ivf import IvfSettings

_KERNEL = SimilarityKernel("cann")
_SIGN_KERNEL = SimilarityKernel("threshold", 0.3)
_GRIDS = GridSettings(grids=5, approximation=2.0, axes=16, width=2.0)
_TOP = 50  # first images of exact search that an engine should find
_BLOCK = 32  # images


def compare(
    rng: np.random.Generator,
    queries: int,
    exact_queries: int,
    peer_queries: int,
    images: int,
    features: int,
    dim: int,
    cell_count: int,
    probes: int,
    nearest: int,
) -> Comparison:
    """Compares searches for queries of the database's places; slower ones do fewer queries."""
    query_descriptors, database = vectors.places(rng, queries, images, features, dim)
    query_mask, mask = (np.ones(x.shape[:2], bool) for x in (query_descriptors, database))
    search_all = engines.exact(database, mask, _KERNEL, _BLOCK)
    top = min(_TOP, images)

    def exact() -> np.ndarray:
        return search_all(query_descriptors[:exact_queries], query_mask[:exact_queries])

    truth = exact()

    def engine(name: str, search: engines.LocalSearch) -> Implementation:
        found = search(query_descriptors, query_mask)[:exact_queries]
        facts = {"overlap": overlap(found, truth, top)}
        return Implementation(name, lambda: search(query_descriptors, query_mask), queries, facts)

    def faiss() -> Implementation:
        search = _by_faiss(query_descriptors[:peer_queries], database, nearest)
        facts = {"overlap": overlap(search(), truth[:peer_queries], top)}
        return Implementation(f"faiss flat, {nearest} nearest, vote", search, peer_queries, facts)

    def product() -> Implementation:
        products = functools.partial(_products, query_descriptors[:peer_queries], database)
        return Implementation("only its matrix product", products, peer_queries)

    cell_index = ivf.build(database, mask, IvfSettings(cell_count))
    return Comparison(
        "query",
        Implementation("local_search", exact, exact_queries),
        {"product": product, "faiss": faiss},
        (
            engine("engine ivf", engines.IvfSearch(cell_index, _KERNEL, probes)),
            engine("engine cann", engines.CannSearch(cann.build(database, mask, _GRIDS))),
        ),
        Work(2.0 * features * features * images * dim, database.nbytes / exact_queries),
    )


def _products(queries: np.ndarray, database: np.ndarray) -> None:
    """Computes the products of exact search block by block, reusing memory."""
    images, features, dim = database.shape
    products = np.empty((features, _BLOCK * features), np.float32)
    for query in queries:
        for start in range(0, images, _BLOCK):
            rows = database[start : start + _BLOCK].reshape(-1, dim)
            np.matmul(query, rows.T, out=products[:, : len(rows)])


def _by_faiss(queries: np.ndarray, database: np.ndarray, nearest: int) -> Callable[[], np.ndarray]:
    """Returns a search by the votes of the nearest features, to similarities float32 [Q, N]."""
    images, features, dim = database.shape
    index = libraries.flat(database.reshape(-1, dim))

    def search() -> np.ndarray:
        return np.stack(
            [libraries.voted(index, query, features, images, nearest, _vote) for query in queries]
        )

    return search


def overlap(found: np.ndarray, exact: np.ndarray, top: int) -> float:
    """Returns the mean share of exact search's first images that another search ranks first too.

    Args:
      found: similarities [Q, N].
      exact: similarities [Q, N].
      top: how many first images are compared.

    Returns:
      The share, from 0 to 1.
    """
    lists = [np.argsort(-side, axis=1, kind="stable")[:, :top] for side in (found, exact)]
    shares = [np.isin(one, other).mean() for one, other in zip(*lists, strict=True)]
    return float(np.mean(shares))


def _vote(similarities: np.ndarray) -> np.ndarray:
    return np.where(
        similarities > _KERNEL.least, np.asarray(_KERNEL(jnp.asarray(similarities))), 0.0
    )


def compare_signs(
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
        exact = engines.exact(database, mask, _SIGN_KERNEL, hamming=hamming)
        return Implementation(
            f"local_search, {hamming}", lambda: exact(query_codes, query_mask), queries
        )

    def vote(distances: np.ndarray) -> np.ndarray:
        similarities = 1.0 - 2.0 * distances.astype(np.float32) / dim
        return np.where(similarities > _SIGN_KERNEL.threshold, similarities, 0.0)

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


_STANDARD = {
    "queries": 64,
    "exact_queries": 8,
    "peer_queries": 1,
    "images": 1600,
    "features": 300,
    "dim": 128,
    "cell_count": 2000,
    "probes": 32,
    "nearest": 1000,
}
CASES = {
    "local": Case(
        compare,
        {
            "standard": _STANDARD,
            "gpu": {**_STANDARD, "exact_queries": 64, "peer_queries": 2},
            "tiny": {
                "queries": 2,
                "exact_queries": 2,
                "peer_queries": 1,
                "images": 5,
                "features": 6,
                "dim": 8,
                "cell_count": 3,
                "probes": 2,
                "nearest": 10,
            },
        },
    ),
    "binary": Case(
        compare_signs,
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
    ),
}
