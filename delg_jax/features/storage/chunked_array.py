"""One array on disk in chunks of rows, each with a checksum: Zarr 3, through TensorStore."""

import math
import pathlib
import re
from typing import Any, Self

import numpy as np
import tensorstore as ts

from delg_jax.errors import UserError

_CONTEXT = re.compile(r"\s*\[(tensorstore_spec|source locations)=.*$")  # behind a message
_LARGEST = 2**32  # bytes of a chunk, decoded
# All chunks in one folder, instead of a folder for each
_KEYS = {"name": "default", "configuration": {"separator": "."}}
_CODECS = ("bytes", "zstd", "crc32c")
_FILE = re.compile(r'local file "([^"]+)"')


class ChunkedArray:
    """Rows of one type and shape; reading is exact or an error, never a filled-in zero.

    Args:
      folder: of the array, one that `create` made.
      context: TensorStore's, with the cache that arrays share; None for no cache.

    Attributes:
      folder: of the array.

    Raises:
      UserError: if there is no such array, or its description is damaged.
    """

    def __init__(self, folder: pathlib.Path, context: ts.Context | None = None) -> None:
        self.folder = folder
        self._context = context
        self._reader = self._open(fill_missing_data_reads=False)
        self._writer: ts.TensorStore | None = None

    @classmethod
    def create(
        cls,
        folder: pathlib.Path,
        shape: tuple[int, ...],
        dtype: np.dtype | str,
        chunk_rows: int,
        level: int,
        context: ts.Context | None = None,
    ) -> Self:
        """Makes an array, or opens the one that is there if it is alike.

        Args:
          folder: of the array.
          shape: rows first.
          dtype: of the values.
          chunk_rows: rows in a chunk.
          level: of Zstandard's compression; 0 for none.
          context: as of the class.

        Returns:
          The array; rows that were never written cannot be read.
        """
        chunk = [chunk_rows, *(max(side, 1) for side in shape[1:])]
        codecs: list[dict[str, Any]] = [{"name": "bytes"}]
        if level:
            codecs.append({"name": "zstd", "configuration": {"level": level}})
        metadata = {
            "data_type": np.dtype(dtype).name,
            "shape": list(shape),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": _KEYS,
            "codecs": [*codecs, {"name": "crc32c"}],
            "fill_value": 0,
        }
        spec = {"driver": "zarr3", "kvstore": _store(folder), "metadata": metadata}
        _result(ts.open(spec, open=True, create=True), folder)
        return cls(folder, context)

    @property
    def shape(self) -> tuple[int, ...]:
        """Rows first."""
        return tuple(self._reader.shape)

    @property
    def dtype(self) -> np.dtype:
        """Of the values."""
        return self._reader.dtype.numpy_dtype

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk."""
        return self._reader.chunk_layout.read_chunk.shape[0]

    @property
    def nbytes(self) -> int:
        """Of all rows, decoded."""
        return self._reader.size * self.dtype.itemsize

    def read(self, rows: slice | np.ndarray, fill: bool = False) -> np.ndarray:
        """Reads rows.

        Args:
          rows: a slice without step, or indices int [n].
          fill: whether chunks that were never written read as zeros.

        Returns:
          [n, ...].

        Raises:
          UserError: if a chunk is damaged or missing, naming its file.
        """
        source = self._writing() if fill else self._reader
        return _result(source[rows].read(), self.folder)

    def start_reading(self, rows: slice) -> ts.Future:
        """As `read`, in the background; `finish_reading` waits for it."""
        return self._reader[rows].read()

    def finish_reading(self, future: ts.Future) -> np.ndarray:
        """The rows of `start_reading`, with its errors."""
        return _result(future, self.folder)

    def start_writing(self, rows: slice, values: np.ndarray) -> ts.Future:
        """Writes rows [n, ...] in the background, each chunk whole or not at all."""
        return self._writing()[rows].write(values)

    def finish_writing(self, future: ts.Future) -> None:
        """Waits for `start_writing`; a UserError if it could not be done."""
        _result(future, self.folder)

    def write(self, rows: slice, values: np.ndarray) -> None:
        """Writes rows [n, ...]."""
        self.finish_writing(self.start_writing(rows, values))

    def resize(self, rows: int) -> None:
        """Gives the array another number of rows; no chunk is touched by a larger one."""
        limit = [rows, *[None] * (len(self.shape) - 1)]
        _result(self._writing().resize(exclusive_max=limit), self.folder)
        self._reader, self._writer = self._open(fill_missing_data_reads=False), None

    def chunk_path(self, number: int) -> pathlib.Path:
        """The file of a chunk of rows."""
        return self.folder / ".".join(["c", str(number), *["0"] * (len(self.shape) - 1)])

    def _writing(self) -> ts.TensorStore:
        """The array as something to write to, where part of a new chunk may be written."""
        if self._writer is None:
            self._writer = self._open(store_data_equal_to_fill_value=True)
        return self._writer

    def _open(self, **options: bool) -> ts.TensorStore:
        spec = {"driver": "zarr3", "kvstore": _store(self.folder), **options}
        context = {"context": self._context} if self._context is not None else {}
        opened = _result(ts.open(spec, open=True, **context), self.folder)
        _require_own(opened, self.folder)
        return opened


def cache(megabytes: float) -> ts.Context:
    """A context whose arrays keep at most so many decoded megabytes in memory."""
    return ts.Context({"cache_pool": {"total_bytes_limit": int(megabytes * 2**20)}})


def _store(folder: pathlib.Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def _require_own(opened: ts.TensorStore, folder: pathlib.Path) -> None:
    """Refuses an array that `create` does not make.

    TensorStore ends the process if memory is short for a chunk; and chunks under other names are
    absent ones, which would read as fill values.
    """
    metadata = opened.spec().to_json()["metadata"]
    chunk = opened.chunk_layout.read_chunk.shape
    size = math.prod(chunk) * opened.dtype.numpy_dtype.itemsize
    whole = chunk[1:] == tuple(max(side, 1) for side in opened.shape[1:])
    known = all(codec["name"] in _CODECS for codec in metadata["codecs"])
    as_made = metadata["chunk_key_encoding"] == _KEYS and metadata["fill_value"] == 0
    if not (whole and known and as_made and size <= _LARGEST):
        rule = f"must describe chunks of whole rows and at most {_LARGEST} bytes, as `delg extract`"
        raise UserError("feature store", str(folder / "zarr.json"), f"{rule} makes them")


def _result(future: ts.Future, folder: pathlib.Path) -> Any:
    """What a future holds; TensorStore's errors in one line."""
    try:
        return future.result()
    except (ValueError, OSError, NotImplementedError) as error:
        text = " ".join(str(error).split())
        found = _FILE.search(text)
        path = found.group(1) if found else str(folder)
        reason = _CONTEXT.sub("", text)
        raise UserError("feature store", path, f"cannot be used: {reason}") from error
