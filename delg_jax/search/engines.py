"""Engines of local search: each is a callable that compares queries with one database."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import numpy as np

from delg_jax.search import cann as cann_index
from delg_jax.search import idf, local_search
from delg_jax.search import ivf as ivf_index
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.cann import CannIndex
from delg_jax.search.ivf import IvfIndex
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray

ENGINES = ("exact", "cann", "ivf")

# From descriptors [Q, Kq, ...] and their mask [Q, Kq] to similarities float32 [Q, N].
LocalSearch = Callable[[Array, Array], np.ndarray]


@dataclasses.dataclass(frozen=True)
class ExactSearch:
    """The engine of `local_search.similarity`; see `exact`.

    Attributes:
      database: descriptors [N, K, ...].
      mask: bool [N, K].
      kernel: of the similarity.
      sample: descriptors and mask of the images on which `idf` is estimated; None for no weights.
      query_block: queries compared at a time.
      options: further arguments of `local_search`.
    """

    database: Array
    mask: Array
    kernel: SimilarityKernel
    sample: tuple[Array, Array] | None
    query_block: int
    options: dict[str, Any]

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N] of queries [Q, Kq, ...] with their mask [Q, Kq]."""
        result = np.zeros((len(queries), len(self.database)), np.float32)
        for rows, arguments in self._query_blocks(queries, query_mask):
            found = local_search.similarity(**arguments)
            result[rows] = found[: len(result[rows])]
        return result

    def top(self, queries: Array, query_mask: Array, top: int) -> tuple[np.ndarray, np.ndarray]:
        """The most similar images of each query; see `local_search.best`.

        Args:
          queries: descriptors [Q, Kq, ...].
          query_mask: bool [Q, Kq].
          top: images wanted, M; more than N means N.

        Returns:
          Similarities float32 [Q, M], best first, and images int32 [Q, M]; ties by lower index.
        """
        shape = len(queries), min(top, len(self.database))
        similarities, images = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        for rows, arguments in self._query_blocks(queries, query_mask):
            found = local_search.best(**arguments, top=top)
            count = len(images[rows])
            similarities[rows], images[rows] = (side[:count] for side in found)
        return similarities, images

    def _query_blocks(
        self, queries: Array, query_mask: Array
    ) -> Iterator[tuple[slice, dict[str, Any]]]:
        """Slices of the queries, and the arguments of `local_search` for each."""
        for rows, block_queries, present in _query_blocks(queries, query_mask, self.query_block):
            arguments = {"queries": block_queries, "query_mask": present, "kernel": self.kernel}
            arguments |= {"database": self.database, "mask": self.mask, **self.options}
            if self.sample is not None:
                block, hamming = self.options["block"], self.options["hamming"]
                arguments["weights"] = idf.weights(
                    block_queries, present, *self.sample, self.kernel, block, hamming
                )
            yield rows, arguments


def exact(
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    idf_images: int = 0,
    query_block: int = 64,
    hamming: str = "popcount",
    devices: Sequence[jax.Device] | None = None,
) -> ExactSearch:
    """The engine of `local_search.similarity`.

    Args:
      database: descriptors [N, K, ...] in an encoding of `descriptor_similarity.cosines`; array
        or rows on disk.
      mask: bool [N, K].
      kernel: of the similarity.
      block: database images in a block of similarities, on each device.
      idf_images: evenly spaced images of the database on which the `idf` of query features is
        estimated; 0 = every feature weighs the same.
      query_block: queries compared at a time; the database is read once per block.
      hamming: how packed signs are compared, one of `binary.HAMMING`.
      devices: to split the database over; None for all of this process.

    Returns:
      The search.
    """
    sample = None
    if idf_images and len(database):
        chosen = np.unique(np.linspace(0, len(database) - 1, idf_images).astype(int))
        sample = database[chosen], mask[chosen]
    options = {"block": block, "hamming": hamming, "devices": devices}
    return ExactSearch(database, mask, kernel, sample, query_block, options)


def cann(index: CannIndex) -> LocalSearch:
    """The engine of constrained approximate nearest neighbours, `cann.similarity`."""

    def search(queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities [Q, N]."""
        return cann_index.similarity(index, queries, query_mask)

    return search


def ivf(
    index: IvfIndex, kernel: SimilarityKernel, probes: int = 24, query_block: int = 64
) -> LocalSearch:
    """The engine of exact cosines within the nearest cells, `ivf.similarity`.

    Args:
      index: of N images.
      kernel: of the similarity.
      probes: cells that a query feature is compared with.
      query_block: queries compared at a time.

    Returns:
      The search.
    """

    def search(queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities [Q, N]."""
        result = np.zeros((len(queries), index.count), np.float32)
        for rows, part, present in _query_blocks(queries, query_mask, query_block):
            found = ivf_index.similarity(index, part, present, kernel, probes)
            result[rows] = found[: len(result[rows])]
        return result

    return search


def _query_blocks(
    queries: Array, query_mask: Array, block: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of queries of one shape; the last is padded with queries without features."""
    block = min(block, max(len(queries), 1))
    for start in starts(len(queries), block):
        rows = slice(start, start + block)
        yield rows, padded_rows(queries, start, block), padded_rows(query_mask, start, block)
