"""The similarity graph: each database image searched against the database, once and offline."""

import dataclasses
import pathlib
import zipfile
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import UserError
from delg_jax.search.blocks import padded_rows, starts
from delg_jax.search.engines import LocalSearch
from delg_jax.workdir import write_arrays

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class SimilarityGraph:
    """The most similar database images of each database image, itself included.

    Attributes:
      indices: int32 [N, r], best first, ties by lower index.
      similarities: float32 [N, r]; row i holds s(i, x), which is not symmetric.
    """

    indices: np.ndarray
    similarities: np.ndarray

    def dense(self, subset: Array) -> np.ndarray:
        """Similarities among some images, 0 where the graph keeps none.

        Args:
          subset: int [M], distinct images.

        Returns:
          float32 [M, M], entry (a, b) is s(subset[a], subset[b]).
        """
        subset = np.asarray(subset)
        column = np.full(len(self.indices), -1, np.int32)
        column[subset] = np.arange(len(subset), dtype=np.int32)
        columns = column[self.indices[subset]]
        rows, neighbours = np.nonzero(columns >= 0)
        matrix = np.zeros((len(subset), len(subset)), np.float32)
        matrix[rows, columns[rows, neighbours]] = self.similarities[subset[rows], neighbours]
        return matrix

    def save(self, path: str | pathlib.Path) -> None:
        """Writes the graph as .npz; the file appears under its name only when it is whole."""
        arrays = {"indices": self.indices, "similarities": self.similarities}
        write_arrays(pathlib.Path(path), arrays)

    @classmethod
    def load(cls, path: str | pathlib.Path) -> "SimilarityGraph":
        """Reads a graph that `save` wrote.

        Raises:
          UserError: if the file is missing, damaged or not a similarity graph.
        """
        try:
            with pathlib.Path(path).open("rb") as file, np.load(file, allow_pickle=False) as arrays:
                return cls(arrays["indices"], arrays["similarities"])
        except FileNotFoundError:
            raise UserError("similarity graph", str(path), "must be an existing file") from None
        except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile) as error:
            raise UserError(
                "similarity graph", str(path), f"must be a whole .npz graph ({error})"
            ) from error


def build(
    descriptors: Array,
    mask: Array,
    search: LocalSearch,
    neighbours: int,
    query_block: int = 32,
    progress: Callable[[int], object] | None = None,
) -> SimilarityGraph:
    """Searches every database image against the database.

    Args:
      descriptors: float32 or float16 [N, K, D], unit norm; an array or a memory map.
      mask: bool [N, K].
      search: an engine over the same images.
      neighbours: similarities kept per image, r; more than N means N.
      query_block: images searched at a time; memory holds their [query_block, N] similarities.
      progress: called with the number of images just finished, after each query block.

    Returns:
      The graph.

    Raises:
      ValueError: if `neighbours` or a block is not positive.
    """
    if neighbours <= 0:
        raise ValueError(f"`neighbours` (={neighbours}) must be positive")
    count = len(descriptors)
    neighbours = min(neighbours, count)
    indices = np.zeros((count, neighbours), np.int32)
    similarities = np.zeros((count, neighbours), np.float32)
    query_block = min(query_block, max(count, 1))
    for start in starts(count, query_block):
        rows = search(
            padded_rows(descriptors, start, query_block), padded_rows(mask, start, query_block)
        )
        best, order = jax.lax.top_k(jnp.asarray(rows), neighbours)
        finished = min(query_block, count - start)
        similarities[start : start + finished] = best[:finished]
        indices[start : start + finished] = order[:finished]
        if progress is not None:
            progress(finished)
    return SimilarityGraph(indices, similarities)
