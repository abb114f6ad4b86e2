"""Engines of local search: each is a callable that compares queries with one database."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Protocol

import jax
import numpy as np

from delg_jax.features.storage import encodings
from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import asmk as asmk_index
from delg_jax.search import cann as cann_index
from delg_jax.search import ivf as ivf_index
from delg_jax.search import local_search
from delg_jax.search.asmk import AsmkIndex, AsmkScoring
from delg_jax.search.batching import Rows, padded_rows, starts
from delg_jax.search.cann import CannIndex
from delg_jax.search.ivf import IvfIndex
from delg_jax.search.kernels import SimilarityKernel
from delg_jax.search.kmeans import Codebook

Array = jax.Array | np.ndarray

ENGINES = ("exact", "cann", "ivf", "asmk")

_WORDS = 512  # compared with a sample at a time

Top = tuple[np.ndarray, np.ndarray]  # similarities float32 and images int32 [Q, M], best first


class LocalSearch(Protocol):
    """What all engines do."""

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N] of queries [Q, Kq, ...] with their mask [Q, Kq]."""

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query; ties by lower index.

        Args:
          queries: descriptors [Q, Kq, ...].
          query_mask: bool [Q, Kq].
          top: images wanted, M; more than the engine compares means all of them.
        """


@dataclasses.dataclass(frozen=True)
class SampleIdf:
    """The idf of features on a sample of the database, see `local_search.idf_weights`.

    Attributes:
      descriptors: of the sample, [n, K, ...].
      mask: bool [n, K].
      kernel: of the similarity.
      power: exponent of the weights.
      block: images compared at a time.
      hamming: how packed signs are compared.
    """

    descriptors: Array
    mask: Array
    kernel: SimilarityKernel
    power: float = 1.0
    block: int = 32
    hamming: str = "popcount"

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Weights float32 [Q, Kq] of features [Q, Kq, ...] with their mask [Q, Kq]."""
        sample = self.descriptors, self.mask
        found = local_search.idf_weights(
            queries, query_mask, *sample, self.kernel, self.block, self.hamming
        )
        return found**self.power


@dataclasses.dataclass(frozen=True)
class WordIdf:
    """The idf of features from that of their nearest visual words: no sample is compared.

    Attributes:
      codebook: C words.
      weights: float32 [C], see `word_weights`.
      assignments: nearest words of a feature whose weights are averaged.
      power: exponent of the average.
    """

    codebook: Codebook
    weights: np.ndarray
    assignments: int
    power: float = 1.0

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """As `SampleIdf`; 1 on padding."""
        found = np.ones(query_mask.shape, np.float32)
        valid = np.asarray(query_mask)
        if len(self.weights) and valid.any():
            features = np.asarray(_plain(np.asarray(queries)[valid]))
            words = self.codebook.nearest(features, self.assignments)
            found[valid] = self.weights[words].mean(axis=1) ** self.power
        return found


def word_weights(
    codebook: Codebook, descriptors: Array, mask: Array, kernel: SimilarityKernel, block: int = 32
) -> np.ndarray:
    """The idf of visual words on a sample of the database, as if they were features of a query.

    Args:
      codebook: C words.
      descriptors: of the sample, [n, K, ...].
      mask: bool [n, K].
      kernel: of the similarity.
      block: images compared at a time.

    Returns:
      float32 [C].
    """
    sample = SampleIdf(_plain(descriptors), mask, kernel, block=block)
    found = np.ones(len(codebook), np.float32)
    size = min(_WORDS, max(len(codebook), 1))
    for start in starts(len(codebook), size):
        words = padded_rows(codebook.centres, start, size)
        every = np.ones((1, size), bool)
        found[start : start + size] = sample(words[None], every)[0, : len(codebook) - start]
    return found


@dataclasses.dataclass(frozen=True)
class ExactSearch:
    """The engine of `local_search.similarity`; see `exact`.

    Attributes:
      database: descriptors [N, K, ...].
      mask: bool [N, K].
      kernel: of the similarity.
      sample: descriptors and mask of the images on which the idf is estimated; None for no weights.
      idf: weights [Q, Kq] of the features of queries, from them and their mask; None for 1.
      query_block: queries compared at a time.
      options: further arguments of `local_search`.
    """

    database: Array
    mask: Array
    kernel: SimilarityKernel
    sample: tuple[Array, Array] | None
    idf: Callable[[Array, Array], np.ndarray] | None
    query_block: int
    options: dict[str, Any]

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N] of queries [Q, Kq, ...] with their mask [Q, Kq]."""
        result = np.zeros((len(queries), len(self.database)), np.float32)
        for rows, arguments in self._query_blocks(queries, query_mask):
            found = local_search.similarity(**arguments)
            result[rows] = found[: len(result[rows])]
        return result

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top` and `local_search.best`."""
        shape = len(queries), min(top, len(self.database))
        similarities, images = np.zeros(shape, np.float32), np.zeros(shape, np.int32)
        for rows, arguments in self._query_blocks(queries, query_mask):
            found = local_search.best(**arguments, top=top)
            count = len(images[rows])
            similarities[rows], images[rows] = (side[:count] for side in found)
        return similarities, images

    def among(self, images: np.ndarray, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities to some images only; the idf stays that of the whole database.

        Args:
          images: int [M], ascending.
          queries: descriptors [Q, Kq, ...].
          query_mask: bool [Q, Kq].

        Returns:
          float32 [Q, M].
        """
        some = dataclasses.replace(self, database=self.database[images], mask=self.mask[images])
        return some(queries, query_mask)

    def _query_blocks(
        self, queries: Array, query_mask: Array
    ) -> Iterator[tuple[slice, dict[str, Any]]]:
        """Slices of the queries, and the arguments of `local_search` for each."""
        for rows, block_queries, present in _query_blocks(queries, query_mask, self.query_block):
            arguments = {"queries": block_queries, "query_mask": present, "kernel": self.kernel}
            arguments |= {"database": self.database, "mask": self.mask, **self.options}
            if self.idf is not None:
                arguments["weights"] = self.idf(block_queries, present)
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
    idf_power: float = 1.0,
) -> ExactSearch:
    """The engine of `local_search.similarity`.

    Args:
      database: descriptors [N, K, ...] in an encoding of `descriptor_similarity.cosines`; array
        or rows on disk.
      mask: bool [N, K].
      kernel: of the similarity.
      block: database images in a block of similarities, on each device.
      idf_images: evenly spaced images of the database on which the idf of query features is
        estimated; 0 = every feature weighs the same.
      query_block: queries compared at a time; the database is read once per block.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.
      devices: to split the database over; None for all of this process.
      idf_power: exponent of the idf.

    Returns:
      The search.
    """
    sample = weights = None
    if idf_images and len(database):
        chosen = np.unique(np.linspace(0, len(database) - 1, idf_images).astype(int))
        sample = database[chosen], mask[chosen]
        weights = SampleIdf(*sample, kernel, idf_power, block, hamming)
    options = {"block": block, "hamming": hamming, "devices": devices}
    return ExactSearch(database, mask, kernel, sample, weights, query_block, options)


@dataclasses.dataclass(frozen=True)
class CannSearch:
    """The engine of constrained approximate nearest neighbours, `cann.similarity`.

    Attributes:
      index: of N images.
      idf: whether votes are weighted by the inverse document frequency of their own hits.
    """

    index: CannIndex
    idf: bool = False

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N]."""
        return cann_index.similarity(self.index, queries, query_mask, self.idf)

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top`."""
        return _top_one_by_one(self, queries, query_mask, top)


@dataclasses.dataclass(frozen=True)
class IvfSearch:
    """The engine of exact cosines within the nearest cells, `ivf.similarity`.

    Attributes:
      index: of N images.
      kernel: of the similarity.
      probes: cells that a query feature is compared with.
      query_block: queries compared at a time.
      idf: whether votes are weighted by the inverse document frequency of their own hits.
    """

    index: IvfIndex
    kernel: SimilarityKernel
    probes: int = 24
    query_block: int = 64
    idf: bool = False

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N]."""
        result = np.zeros((len(queries), self.index.count), np.float32)
        for rows, part, present in _query_blocks(queries, query_mask, self.query_block):
            found = ivf_index.similarity(
                self.index, part, present, self.kernel, self.probes, self.idf
            )
            result[rows] = found[: len(result[rows])]
        return result

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top`."""
        return _top_one_by_one(self, queries, query_mask, top)


@dataclasses.dataclass(frozen=True)
class AsmkSearch:
    """The engine of one-bit features in the lists of visual words, `asmk.similarity`.

    Attributes:
      index: of N images.
      scoring: of its entries.
    """

    index: AsmkIndex
    scoring: AsmkScoring

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N]."""
        return asmk_index.similarity(self.index, queries, query_mask, self.scoring)

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top`."""
        return _top_one_by_one(self, queries, query_mask, top)


@dataclasses.dataclass(frozen=True)
class CandidateSearch:
    """Candidates of one engine, compared by another similarity; the images behind them follow.

    Attributes:
      first: finds the images.
      second: compares the candidates exactly; its database has the same images.
      count: candidates of each query, at most.
      estimated: images behind them, at most, in the order of `first`, with a similarity that
        `estimate` makes of that of `first`.
    """

    first: LocalSearch
    second: ExactSearch
    count: int
    estimated: int = 0

    @property
    def image_idf(self) -> Callable[[Array, Array], np.ndarray] | None:
        """The idf of features of database images, in a stored graph and in pairs on the fly.

        Of words, it is that of the one word that lists the feature, which needs no average over the
        `assignments` that a query takes.
        """
        idf = self.second.idf
        return dataclasses.replace(idf, assignments=1) if isinstance(idf, WordIdf) else idf

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N], minus infinity for images that `top` does not give."""
        result = np.full((len(queries), len(self.second.database)), -np.inf, np.float32)
        similarities, images = self.top(queries, query_mask, self.count + self.estimated)
        np.put_along_axis(result, images.astype(np.int64), similarities, axis=1)
        return result

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top`."""
        scores, found = self.first.top(queries, query_mask, self.count + self.estimated)
        count = min(self.count, found.shape[1])
        similarities = np.zeros(found.shape, np.float32)
        for row, candidates in enumerate(found[:, :count]):
            one, order = (
                slice(row, row + 1),
                np.argsort(candidates),
            )  # rows on disk are read in order
            compared = self.second.among(candidates[order], queries[one], query_mask[one])
            similarities[row, order] = compared[0]
        best, behind = slice(None, count), slice(count, None)
        if found.shape[1] > count:
            similarities[:, behind] = estimate(
                scores[:, best], similarities[:, best], scores[:, behind]
            )
        order = np.lexsort((found[:, best], -similarities[:, best]))
        images = found.copy()
        for lists in (similarities, images):
            lists[:, best] = np.take_along_axis(lists[:, best], order, axis=1)
        return similarities[:, :top], images[:, :top]


def estimate(scores: np.ndarray, exact: np.ndarray, behind: np.ndarray) -> np.ndarray:
    """Similarities of the images behind the candidates, from their scores by another engine.

    A score is multiplied by the median of similarity / score of the later half of the candidates,
    and limited to the least similarity of a candidate, so that no image passes one.

    Args:
      scores: float [Q, M] of the candidates, descending.
      exact: float [Q, M], their similarities, in the same order.
      behind: float [Q, T], scores of the images behind them.

    Returns:
      float32 [Q, T], in the order of `behind`; zeros where no later candidate has a score.
    """
    later = slice(scores.shape[1] // 2, None)
    scored = scores[:, later] > 0.0
    ratios = np.where(scored, exact[:, later], np.nan) / np.where(scored, scores[:, later], 1.0)
    ratio = np.zeros(len(ratios))
    some = scored.any(axis=1)
    ratio[some] = np.nanmedian(ratios[some], axis=1)
    return np.minimum(ratio[:, None] * behind, exact.min(axis=1)[:, None]).astype(np.float32)


@dataclasses.dataclass(frozen=True)
class SignSearch:
    """An engine over unit vectors of two values, asked with the packed signs of such vectors.

    Attributes:
      engine: whose database holds what `encodings.decode` makes of signs.
    """

    engine: LocalSearch

    def __call__(self, queries: Array, query_mask: Array) -> np.ndarray:
        """Similarities float32 [Q, N] of queries uint8 [Q, Kq, D / 8] with their mask [Q, Kq]."""
        return self.engine(_vectors(queries), query_mask)

    def top(self, queries: Array, query_mask: Array, top: int) -> Top:
        """The most similar images of each query, see `LocalSearch.top`."""
        return self.engine.top(_vectors(queries), query_mask, top)


def of_signs(rows: Rows) -> StoredRows:
    """Packed signs uint8 [N, K, D / 8] as unit vectors float16 [N, K, D], decoded when read."""
    shape = (*rows.shape[:-1], 8 * rows.shape[-1])
    return StoredRows(lambda wanted: _vectors(rows[wanted]), shape, np.float16)


def _plain(descriptors: Array) -> Array:
    """Packed signs as unit vectors; others as they are."""
    return _vectors(descriptors) if descriptors.dtype == np.uint8 else descriptors


def _vectors(codes: Array) -> np.ndarray:
    return encodings.decode(encodings.Codes(np.asarray(codes), None), "sign")


def _top_one_by_one(search: LocalSearch, queries: Array, query_mask: Array, top: int) -> Top:
    """The best of all similarities of an engine, of which memory holds those of one query."""
    similarities: list[np.ndarray] = []
    images: list[np.ndarray] = []
    for row in range(len(queries)):
        (found,) = search(queries[row : row + 1], query_mask[row : row + 1])
        best = _first(found, min(top, len(found)))
        similarities.append(found[best])
        images.append(best.astype(np.int32))
    if not images:
        return np.zeros((0, 0), np.float32), np.zeros((0, 0), np.int32)
    return np.stack(similarities), np.stack(images)


def _first(values: np.ndarray, count: int) -> np.ndarray:
    """Indices of the `count` largest values, largest first; ties by lower index."""
    if count == 0:
        return np.zeros(0, np.int64)
    least = np.partition(values, len(values) - count)[len(values) - count]
    sure, ties = np.flatnonzero(values > least), np.flatnonzero(values == least)
    kept = np.sort(np.concatenate([sure, ties[: count - len(sure)]]))
    return kept[np.argsort(-values[kept], kind="stable")]


def _query_blocks(
    queries: Array, query_mask: Array, block: int
) -> Iterator[tuple[slice, np.ndarray, np.ndarray]]:
    """Blocks of queries of one shape; the last is padded with queries without features."""
    block = min(block, max(len(queries), 1))
    for start in starts(len(queries), block):
        rows = slice(start, start + block)
        yield rows, padded_rows(queries, start, block), padded_rows(query_mask, start, block)
