"""Blocks of rows with one static shape, so that a kernel is compiled once per database.

A block is what is read or computed at a time, in number of images or rows. (A chunk is a stored
part of an array, and a batch is what a network processes at a time.)
"""

import concurrent.futures
import math
from collections.abc import Iterator, Sequence

import jax
import numpy as np

from delg_jax.features.storage.rows import StoredRows

Rows = jax.Array | np.ndarray | StoredRows  # what can be read by rows

_LINE = 64  # bytes of a cache line; JAX on a CPU uses arrays that are aligned to it in place


def padded_rows(array: Rows, start: int, size: int) -> np.ndarray:
    """Returns `size` rows from `start` on, padded with zeros (False) after the last row.

    Args:
      array: [N, ...], an array or a memory map; only these rows are read.
      start: first row, 0 <= start <= N.
      size: rows of the result.

    Returns:
      Array [size, ...] of the same dtype, aligned to a cache line; a view if the rows are.
    """
    rows = np.asarray(array[start : start + size])
    if len(rows) == size and is_aligned(rows):
        return rows
    shape = (size, *rows.shape[1:])
    nbytes = size * math.prod(rows.shape[1:]) * rows.dtype.itemsize
    memory = np.empty(nbytes + _LINE, np.uint8)
    first = -memory.ctypes.data % _LINE
    copy = memory[first : first + nbytes].view(rows.dtype).reshape(shape)
    copy[: len(rows)] = rows
    copy[len(rows) :] = 0
    return copy


def is_aligned(array: np.ndarray) -> bool:
    """Whether the array is contiguous and starts at a cache line."""
    return array.flags.c_contiguous and array.ctypes.data % _LINE == 0


def starts(count: int, block: int) -> range:
    """The first row of every block.

    Args:
      count: number of rows, N.
      block: rows in a block.

    Raises:
      ValueError: if `block` is not positive.
    """
    if block <= 0:
        raise ValueError(f"`block` (={block}) must be positive")
    return range(0, count, block)


def even_blocks(count: int, block: int) -> tuple[int, list[int]]:
    """Blocks of one size without padding: the last starts early and overlaps the one before.

    Args:
      count: number of rows, N.
      block: rows in a block, at most.

    Returns:
      Rows in a block, and the first row of every block.

    Raises:
      ValueError: if `block` is not positive.
    """
    blocks = len(starts(count, block))
    size = -(-count // max(blocks, 1))
    return size, [min(index * size, count - size) for index in range(blocks)]


def read_ahead(
    arrays: Sequence[Rows], block: int, firsts: Sequence[int] | None = None
) -> Iterator[tuple[int, tuple[np.ndarray, ...]]]:
    """Yields blocks of rows of several arrays; the next block is read in the background.

    Args:
      arrays: [N, ...] each; arrays, memory maps or rows on disk.
      block: rows in a block.
      firsts: first rows of the blocks; None for consecutive blocks.

    Yields:
      The first row of a block, and the `padded_rows` of every array.

    Raises:
      ValueError: if `block` is not positive.
    """
    firsts = starts(len(arrays[0]), block) if firsts is None else firsts
    with concurrent.futures.ThreadPoolExecutor(len(arrays)) as pool:

        def read(start: int) -> list[concurrent.futures.Future]:
            return [pool.submit(padded_rows, array, start, block) for array in arrays]

        pending = read(firsts[0]) if firsts else []
        for start, following in zip(firsts, [*firsts[1:], None], strict=False):
            rows = tuple(future.result() for future in pending)
            pending = read(following) if following is not None else []
            yield start, rows
