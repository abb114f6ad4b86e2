"""Global search: the best images of a database by inner product."""

import functools

import jax
import numpy as np

from delg_jax.benchmarks.case import Case, Comparison, Implementation, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.benchmarks.peers import libraries
from delg_jax.search import global_search

_SIZES = {
    "standard": {"images": 100_000, "dim": 2048, "count": 100},
    "gpu": {"images": 1_000_000, "dim": 2048, "count": 100},
    "tiny": {"images": 50, "dim": 8, "count": 5},
}


def compare(
    queries: int, rng: np.random.Generator, images: int, dim: int, count: int
) -> Comparison:
    """Compares searches for queries near database images; an accelerator holds the database."""
    database = vectors.unit(rng, images, dim)
    noise = vectors.unit(rng, queries, dim)
    query_descriptors = vectors.normalized(database[rng.integers(images, size=queries)] + noise)
    on_device = database if jax.default_backend() == "cpu" else jax.device_put(database)

    def faiss() -> Implementation:
        index = libraries.flat(database)
        return Implementation(
            "faiss IndexFlatIP", lambda: index.search(query_descriptors, count), queries
        )

    def numpy() -> Implementation:
        name = "NumPy product, argpartition"
        return Implementation(
            name, lambda: libraries.top_k(query_descriptors, database, count), queries
        )

    return Comparison(
        "query",
        Implementation(
            "global_search",
            lambda: global_search.search(query_descriptors, on_device, count),
            queries,
        ),
        {"faiss": faiss, "numpy": numpy},
        work=Work(2.0 * images * dim, database.nbytes / queries),
    )


CASES = {
    name: Case(functools.partial(compare, queries), _SIZES)
    for name, queries in {"global": 64, "global_one": 1}.items()
}
