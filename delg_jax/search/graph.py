"""The similarity graph: the most similar database images of each database image."""

import dataclasses

import jax
import numpy as np

from delg_jax.features.storage.rows import StoredRows
from delg_jax.search.batching import starts

Array = jax.Array | np.ndarray
Lists = tuple[np.ndarray, np.ndarray]  # similarities float32 and images int32 [B, r], best first

_BLOCK_BYTES = 2**26  # of rows read at a time when all are read


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
