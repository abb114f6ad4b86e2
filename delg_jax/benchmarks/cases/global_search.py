"""Global search: the best images of a database by inner product."""

import functools

import jax
import numpy as np

from delg_jax.benchmarks.baselines import faiss_search, libraries
from delg_jax.benchmarks.case import Bench, Comparison, Contender, Work
from delg_jax.benchmarks.cases import vectors
from delg_jax.search import global_search

_SIZES = {
    "standard": {"images": 100_000, "dim": 2048, "count": 100},
    "gpu": {"images": 1_000_000, "dim": 2048, "count": 100},
    "tiny": {"images": 50, "dim": 8, "count": 5},
}


def compare(
    queries: int, rng: np.random.Generator, images: int, dim: int, count: int
) -> Comparison:
    """Queries near images of the database, which is on the device if that is no CPU."""
    database = vectors.unit(rng, images, dim)
    noise = vectors.unit(rng, queries, dim)
    asked = vectors.normalized(database[rng.integers(images, size=queries)] + noise)
    held = database if jax.default_backend() == "cpu" else jax.device_put(database)

    def faiss() -> Contender:
        index = faiss_search.flat(database)
        return Contender("faiss IndexFlatIP", lambda: index.search(asked, count), queries)

    def numpy() -> Contender:
        name = "NumPy product, argpartition"
        return Contender(name, lambda: libraries.top_k(asked, database, count), queries)

    return Comparison(
        "query",
        Contender("global_search", lambda: global_search.search(asked, held, count), queries),
        {"faiss": faiss, "numpy": numpy},
        work=Work(2.0 * images * dim, database.nbytes / queries),
    )


BENCHES = {
    name: Bench(functools.partial(compare, queries), _SIZES)
    for name, queries in {"global": 64, "global_one": 1}.items()
}
