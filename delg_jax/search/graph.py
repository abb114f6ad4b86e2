"""The similarity graph: the most similar database images of each database image.

It is stored, as lists, or computed for the pairs of images that a re-ranking asks for.
"""

import dataclasses

import jax
import numpy as np

from delg_jax.features.storage.rows import StoredRows
from delg_jax.search import local_search
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.engines import ExactSearch

Array = jax.Array | np.ndarray
Lists = tuple[np.ndarray, np.ndarray]  # similarities float32 and images int32 [B, r], best first

_BLOCK_BYTES = 2**26  # of rows read at a time when all are read
_REMEMBERED = 100_000  # images whose weights are kept, at most


@dataclasses.dataclass(frozen=True)
class SimilarityGraph:
    """The most similar database images of each database image, itself included.

    Attributes:
      indices: int32 [N, r], best first, ties by lower index; an array, or rows on disk.
      similarities: float32 [N, r], of the same kind; row i holds s(i, x), which is not symmetric.
    """

    indices: np.ndarray | StoredRows
    similarities: np.ndarray | StoredRows

    def __len__(self) -> int:
        """Number of images."""
        return len(self.indices)

    def dense(self, subset: Array) -> tuple[np.ndarray, np.ndarray]:
        """Similarities among some images, and which of them the graph holds; reads only their rows.

        Args:
          subset: int [M], distinct images.

        Returns:
          Similarities float32 [M, M], entry (a, b) is s(subset[a], subset[b]), or 0 where the graph
          holds none; and known bool [M, M], True where it holds one, also a 0.
        """
        subset = np.asarray(subset)
        column = np.full(len(self), -1, np.int32)
        column[subset] = np.arange(len(subset), dtype=np.int32)
        columns = column[self.indices[subset]]
        rows, neighbours = np.nonzero(columns >= 0)
        known = np.zeros((len(subset), len(subset)), bool)
        known[rows, columns[rows, neighbours]] = True
        matrix = np.zeros(known.shape, np.float32)
        matrix[rows, columns[rows, neighbours]] = self.similarities[subset][rows, neighbours]
        return matrix, known

    def at_rank(self, images: Array, rank: int) -> np.ndarray:
        """The similarity at one rank in the lists of some images; of a shorter list, the last.

        Args:
          images: int, of any shape.
          rank: from 1.

        Returns:
          float32, of the shape of `images`.
        """
        rank = min(rank, self.similarities.shape[1])
        return self.similarities[np.asarray(images)][..., rank - 1]

    def nearest(self, count: int) -> Lists:
        """The first `count` neighbours of every image, in memory.

        Args:
          count: more than r means r.

        Returns:
          Similarities float32 and indices int32 [N, count].
        """
        block = max(1, _BLOCK_BYTES // max(4 * self.indices.shape[1], 1))

        def heads(rows: np.ndarray | StoredRows) -> np.ndarray:
            found = np.empty((len(self), min(count, rows.shape[1])), rows.dtype)
            for start in starts(len(self), block):
                found[start : start + block] = rows[start : start + block][:, :count]
            return found

        return heads(self.similarities), heads(self.indices)


def merge(first: Lists, second: Lists, count: int) -> Lists:
    """The best of two lists for each image; equal values of the first list come first.

    Args:
      first: lists [B, r], best first.
      second: lists [B, s] of other images.
      count: kept of each, at most.

    Returns:
      Lists [B, min(count, r + s)], best first.
    """
    similarities, images = (
        np.concatenate(both, axis=1) for both in zip(first, second, strict=True)
    )
    order = np.argsort(-similarities, axis=1, kind="stable")[:, :count]
    return (
        np.take_along_axis(similarities, order, axis=1),
        np.take_along_axis(images, order, axis=1),
    )


@dataclasses.dataclass(frozen=True)
class PairGraph:
    """What a `SimilarityGraph` tells of a few images, without one: nothing has to be built.

    It knows all pairs, as a stored graph with all images as neighbours does. Memory holds the
    features of the images asked for.

    Attributes:
      search: over the N images of the database.
    """

    search: ExactSearch
    _weights: dict[int, np.ndarray] = dataclasses.field(default_factory=dict, repr=False)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.search.database)

    def dense(self, subset: Array) -> tuple[np.ndarray, np.ndarray]:
        """Similarities among some images; see `SimilarityGraph.dense`.

        Args:
          subset: int [M], distinct images.

        Returns:
          Similarities float32 [M, M], and known bool [M, M], all True.
        """
        subset = np.asarray(subset)
        order = np.argsort(subset)  # rows on disk are read in order
        images = subset[order]
        search = self.search
        rows, mask = (np.asarray(side[images]) for side in (search.database, search.mask))
        weights = self._weights_of(images, rows, mask)
        hamming = search.options["hamming"]
        found = local_search.among(rows, mask, search.kernel, weights, hamming)
        matrix = np.empty_like(found)
        matrix[np.ix_(order, order)] = found
        return matrix, np.ones(matrix.shape, bool)

    def at_rank(self, images: Array, rank: int) -> np.ndarray:
        """The similarity at one rank in the lists of some images, estimated on the idf sample.

        Args:
          images: int, of any shape.
          rank: from 1, among all N images.

        Returns:
          float32, of the shape of `images`: of the n images of the sample, the similarity at rank
          n `rank` / N, rounded up.

        Raises:
          ValueError: without a sample.
        """
        if self.search.sample is None:
            raise ValueError("`search.sample` (=None) must hold images to estimate ranks on")
        distinct, places = np.unique(np.asarray(images), return_inverse=True)
        rows, mask = (
            np.asarray(side[distinct]) for side in (self.search.database, self.search.mask)
        )
        found = self._similarities(distinct, rows, mask, *self.search.sample)
        scaled = -(-found.shape[1] * min(rank, len(self)) // len(self))
        return np.sort(found, axis=1)[:, -scaled][places].reshape(np.shape(images))

    def _similarities(
        self, images: np.ndarray, rows: Array, mask: Array, database: Array, present: Array
    ) -> np.ndarray:
        """Similarities float32 [M, n] of images with features [M, K] to others [n, K]."""
        search = self.search
        weights = self._weights_of(images, rows, mask)
        result = np.zeros((len(rows), len(database)), np.float32)
        block = min(search.query_block, max(len(rows), 1))
        for start in starts(len(rows), block):
            found = local_search.similarity(
                padded_rows(rows, start, block),
                padded_rows(mask, start, block),
                database,
                present,
                search.kernel,
                weights=None if weights is None else padded_rows(weights, start, block),
                **search.options,
            )
            result[start : start + block] = found[: len(result) - start]
        return result

    def _weights_of(self, images: np.ndarray, rows: Array, mask: Array) -> np.ndarray | None:
        """The idf of the features of images, [M, K]; those of images seen before are kept."""
        search = self.search
        if search.idf is None:
            return None
        if not len(images):
            return np.zeros(mask.shape, np.float32)
        if len(self._weights) > _REMEMBERED:
            self._weights.clear()
        new = np.flatnonzero([image not in self._weights for image in images.tolist()])
        for start in starts(len(new), search.query_block):
            some = new[start : start + search.query_block]
            found = search.idf(
                padded_rows(rows[some], 0, search.query_block),
                padded_rows(mask[some], 0, search.query_block),
            )
            self._weights.update(zip(images[some].tolist(), found[: len(some)], strict=True))
        return np.stack([self._weights[image] for image in images.tolist()])
