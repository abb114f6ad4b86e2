"""Blocks of rows with one static shape, so that a kernel is compiled once for a whole database."""

from collections.abc import Iterator

import jax
import numpy as np

Array = jax.Array | np.ndarray


def padded_rows(array: Array, start: int, size: int) -> np.ndarray:
    """Copies `size` rows from `start` on to memory, with zeros (False) after the last row.

    Args:
      array: [N, ...], an array or a memory map; only the rows asked for are read.
      start: first row, 0 <= start <= N.
      size: rows of the result.

    Returns:
      Array [size, ...] of the same type.
    """
    rows = np.asarray(array[start : start + size])
    missing = size - len(rows)
    if not missing:
        return rows
    return np.concatenate([rows, np.zeros((missing, *rows.shape[1:]), rows.dtype)])


def starts(count: int, block: int) -> Iterator[int]:
    """Yields the first row of every block.

    Args:
      count: number of rows, N.
      block: rows in a block.

    Raises:
      ValueError: if `block` is not positive.
    """
    if block <= 0:
        raise ValueError(f"`block` (={block}) must be positive")
    yield from range(0, count, block)
