"""Rows that are read from disk when they are indexed, like those of a memory map."""

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt


class StoredRows:
    """An array [N, ...] that reads rows when they are indexed.

    Args:
      read: returns the rows [n, ...] for a slice without step, or for indices int [n].
      shape: of the array.
      dtype: of what `read` returns.

    Attributes:
      shape: of the array.
      dtype: of the rows.
    """

    def __init__(
        self,
        read: Callable[[slice | np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
    ) -> None:
        self._read = read
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return len(self) * self.row_bytes

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """One row, a slice of rows, or the rows of an index array of any shape."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._read(slice(start, max(start, stop)))
            key = np.arange(start, stop, step)
        indices = np.asarray(key)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        flat = np.where(indices < 0, indices + len(self), indices).ravel()
        return self._read(flat).reshape(*indices.shape, *self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows."""
        if copy is False:
            raise ValueError(f"`copy` (={copy}) must not be False: the rows are on disk")
        return self._read(slice(0, len(self))).astype(dtype or self.dtype, copy=False)

    def in_memory(self, block_bytes: float) -> np.ndarray:
        """Reads all rows in blocks, which bounds the memory for decoding."""
        whole = np.empty(self.shape, self.dtype)
        step = max(1, int(block_bytes // max(self.row_bytes, 1)))
        for start in range(0, len(self), step):
            whole[start : start + step] = self[start : start + step]
        return whole
