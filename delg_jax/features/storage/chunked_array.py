"""An array on disk in chunks of rows with checksums: Zarr 3, through TensorStore."""

import math
import os
import pathlib
import re
from collections.abc import Sequence
from typing import Any, Self

import numpy as np
import tensorstore as ts

from delg_jax import json_files, system_errors
from delg_jax.errors import UserError

_CONTEXT = re.compile(r"\s*\[(tensorstore_spec|source locations)=.*$")  # at the end of a message
_LARGEST = 2**32  # bytes of a chunk, decoded
# All chunks in one folder, instead of one folder each
_KEYS = {"name": "default", "configuration": {"separator": "."}}
_METADATA = "zarr.json"
_CODECS = ("bytes", "zstd", "crc32c")
_SHARDED = "sharding_indexed"
_INDEX_CODECS: list[dict[str, Any]] = [{"name": "bytes"}, {"name": "crc32c"}]
_CHECKSUM_BYTES = 4  # of CRC-32C, at the end of a chunk, a part, and the index of a shard
_ABSENT = 2**64 - 1  # offset of a part that was not written
_FILE = re.compile(r'local file "([^"]+)"')


class ChunkedArray:
    """Rows of one type and shape; reading a missing chunk is an error, not zeros.

    A chunk is a file. It may consist of parts with checksums of their own, as a shard of Zarr, so
    that a few rows, or the first columns of them, are read without the others.

    Args:
      folder: of the array, made by `create`.
      context: TensorStore's, with the cache that arrays share; None for no cache.

    Attributes:
      folder: of the array.

    Raises:
      UserError: if there is no such array, or its metadata is damaged.
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
        part_bytes: int = 0,
    ) -> Self:
        """Creates an array, or opens an existing one with the same metadata.

        Args:
          folder: of the array.
          shape: rows first.
          dtype: of the values.
          chunk_rows: rows in a chunk.
          level: of Zstandard's compression; 0 for none.
          context: as of the class.
          part_bytes: of a part of a chunk, decoded, at most: some rows, or if one is larger, some
            of its columns, those of the second axis; 0 for chunks without parts.

        Returns:
          The array; rows cannot be read before they are written.
        """
        chunk = [chunk_rows, *(max(side, 1) for side in shape[1:])]
        codecs: list[dict[str, Any]] = [{"name": "bytes"}]
        if level:
            codecs.append({"name": "zstd", "configuration": {"level": level}})
        codecs.append({"name": "crc32c"})
        part = _part(chunk, np.dtype(dtype).itemsize, part_bytes) if part_bytes else chunk
        if part != chunk:
            chunk[1] += -chunk[1] % part[1]
            configuration = {"chunk_shape": part, "codecs": codecs, "index_codecs": _INDEX_CODECS}
            codecs = [{"name": _SHARDED, "configuration": configuration}]
        metadata = {
            "data_type": np.dtype(dtype).name,
            "shape": list(shape),
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunk}},
            "chunk_key_encoding": _KEYS,
            "codecs": codecs,
            "fill_value": 0,
        }
        _require_shallow(folder)
        spec = {"driver": "zarr3", "kvstore": _store(folder), "metadata": metadata}
        _result(ts.open(spec, open=True, create=True), folder)
        return cls(folder, context)

    @property
    def shape(self) -> tuple[int, ...]:
        """Shape, rows first."""
        return tuple(self._reader.shape)

    @property
    def dtype(self) -> np.dtype:
        """Type of the values."""
        return self._reader.dtype.numpy_dtype

    @property
    def chunk_rows(self) -> int:
        """Rows in a chunk."""
        return _chunk_shape(self._reader)[0]

    @property
    def _part_shape(self) -> tuple[int, ...]:
        """The shape of a part; of a chunk if it has none."""
        return _sides(self._reader.chunk_layout.read_chunk.shape)

    @property
    def _is_sharded(self) -> bool:
        return self._part_shape != _chunk_shape(self._reader)

    @property
    def nbytes(self) -> int:
        """Bytes of all rows, decoded."""
        return self._reader.size * self.dtype.itemsize

    def read(
        self, rows: slice | np.ndarray, fill: bool = False, columns: int | None = None
    ) -> np.ndarray:
        """Reads rows.

        Args:
          rows: a slice without step, or indices int [n].
          fill: whether missing chunks are read as zeros.
          columns: of the second axis, the first of which are read; None for all.

        Returns:
          [n, ...].

        Raises:
          UserError: if a chunk is damaged or missing, naming its file.
        """
        source = self._writing() if fill else self._reader
        wanted = source[rows] if columns is None else source[rows, :columns]
        return _result(wanted.read(), self.folder)

    def start_reading(self, rows: slice) -> ts.Future:
        """Starts reading rows in the background; `finish_reading` waits for them."""
        return self._reader[rows].read()

    def finish_reading(self, future: ts.Future) -> np.ndarray:
        """Waits for the rows of `start_reading`; a UserError if a chunk is damaged or missing."""
        return _result(future, self.folder)

    def start_writing(self, rows: slice, values: np.ndarray) -> ts.WriteFutures:
        """Starts writing rows [n, ...] in the background, each chunk atomically."""
        return self._writing()[rows].write(values)

    def finish_writing(self, future: ts.WriteFutures) -> None:
        """Waits for `start_writing`; a UserError if writing failed."""
        _result(future, self.folder)

    def write(self, rows: slice, values: np.ndarray) -> None:
        """Writes rows [n, ...]."""
        self.finish_writing(self.start_writing(rows, values))

    def resize(self, rows: int) -> None:
        """Changes the number of rows; growing touches no chunk."""
        limit = [rows, *[None] * (len(self.shape) - 1)]
        _result(self._writing().resize(exclusive_max=limit), self.folder)
        self._reader, self._writer = self._open(fill_missing_data_reads=False), None

    def chunk_path(self, number: int) -> pathlib.Path:
        """The file of a chunk of rows."""
        return self.folder / ".".join(["c", str(number), *["0"] * (len(self.shape) - 1)])

    def checksums(self, number: int) -> bytes:
        """Lengths and checksums of a chunk, or of its parts in order.

        Raises:
          UserError: if the file is absent or too short.
        """
        path = self.chunk_path(number)
        try:
            if self._is_sharded:
                return self._part_checksums(path)
            with path.open("rb") as file:
                length = file.seek(0, os.SEEK_END)
                file.seek(-_CHECKSUM_BYTES, os.SEEK_END)
                return length.to_bytes(8, "little") + file.read(_CHECKSUM_BYTES)
        except (OSError, ValueError) as error:
            reason = getattr(error, "strerror", None) or str(error)
            rule = f"cannot be used: {reason}; delg verify --repair discards it"
            raise UserError("feature store", str(path), rule) from error

    def absent_rows(self, number: int) -> np.ndarray:
        """Rows of a chunk, which has a file, that are in no written part; none without parts."""
        if not self._is_sharded:
            return np.zeros(0, np.int64)
        path, start, rows = self.chunk_path(number), number * self.chunk_rows, self._part_shape[0]
        parts = self._index(path)[:, 0].reshape(self.chunk_rows // rows, -1)
        absent = np.repeat((parts == _ABSENT).any(axis=1), rows)
        return start + np.flatnonzero(absent[: self.shape[0] - start])

    def _index(self, path: pathlib.Path) -> np.ndarray:
        """Offset and length of each part of a chunk, uint64 [parts, 2]."""
        sides = zip(_chunk_shape(self._reader), self._part_shape, strict=True)
        parts = math.prod(whole // part for whole, part in sides)
        with path.open("rb") as file:
            file.seek(-(16 * parts + _CHECKSUM_BYTES), os.SEEK_END)
            return np.frombuffer(file.read(16 * parts), "<u8").reshape(parts, 2)

    def _part_checksums(self, path: pathlib.Path) -> bytes:
        index = self._index(path)
        written = index[index[:, 0] != _ABSENT]
        content = np.memmap(path, np.uint8, "r")
        ends = written.sum(axis=1)
        if (ends < _CHECKSUM_BYTES).any() or (ends > len(content)).any():
            raise ValueError("its index is damaged")
        places = ends.astype(np.int64)[:, None] + np.arange(-_CHECKSUM_BYTES, 0)[None, :]
        return index[:, 1].tobytes() + content[places].tobytes()

    def _writing(self) -> ts.TensorStore:
        """The array opened for writing, where part of a new chunk may be written."""
        if self._writer is None:
            self._writer = self._open(store_data_equal_to_fill_value=True)
        return self._writer

    def _open(self, **options: bool) -> ts.TensorStore:
        _require_shallow(self.folder)
        spec = {"driver": "zarr3", "kvstore": _store(self.folder), **options}
        opened = _result(ts.open(spec, open=True, context=self._context), self.folder)
        _require_own(opened, self.folder)
        return opened


def _part(chunk: Sequence[int], itemsize: int, most: int) -> list[int]:
    """The shape of the parts of a chunk, of at most so many bytes where that is possible."""
    row = math.prod(chunk[1:]) * itemsize
    parts = min(-(-row // most), chunk[1]) if len(chunk) > 1 else 1
    rows = next(
        n for n in range(chunk[0], 0, -1) if chunk[0] % n == 0 and (n * row <= most or n == 1)
    )
    return [rows, *([-(-chunk[1] // parts), *chunk[2:]] if len(chunk) > 1 else [])]


def cache(megabytes: float) -> ts.Context:
    """A context whose arrays share a cache of decoded chunks of this size."""
    return ts.Context({"cache_pool": {"total_bytes_limit": int(megabytes * 2**20)}})


def _store(folder: pathlib.Path) -> dict[str, str]:
    return {"driver": "file", "path": f"{folder.resolve()}/"}


def _require_shallow(folder: pathlib.Path) -> None:
    """Refuses metadata of many levels, which crash TensorStore; it checks the rest itself."""
    json_files.read(folder / _METADATA, "feature store", json_files.anything)


def _chunk_shape(opened: ts.TensorStore) -> tuple[int, ...]:
    return _sides(opened.chunk_layout.write_chunk.shape)


def _sides(shape: tuple[int | None, ...] | None) -> tuple[int, ...]:
    return tuple(side or 0 for side in shape or ())  # never None for an array that is open


def _require_own(opened: ts.TensorStore, folder: pathlib.Path) -> None:
    """Refuses metadata that `create` does not write.

    TensorStore ends the process if a chunk does not fit in memory. Chunks under other names would
    count as missing and be read as fill values.
    """
    metadata = opened.spec().to_json()["metadata"]
    chunk, part = _chunk_shape(opened), _sides(opened.chunk_layout.read_chunk.shape)
    size = math.prod(chunk) * opened.dtype.numpy_dtype.itemsize
    sides = [max(side, 1) for side in opened.shape[1:]]
    codecs, known = metadata["codecs"], True
    if codecs[0]["name"] == _SHARDED:
        inner = codecs[0]["configuration"]
        known = len(codecs) == 1 and part != chunk and inner["index_location"] == "end"
        known &= [codec["name"] for codec in inner["index_codecs"]] == ["bytes", "crc32c"]
        sides[0] = -(-sides[0] // part[1]) * part[1]
        codecs = inner["codecs"]
    known &= list(chunk[1:]) == sides and all(codec["name"] in _CODECS for codec in codecs)
    known &= codecs[-1]["name"] == "crc32c"
    as_made = metadata["chunk_key_encoding"] == _KEYS and metadata["fill_value"] == 0
    if not (known and as_made and size <= _LARGEST):
        rule = f"must describe chunks of whole rows and at most {_LARGEST} bytes, as `delg extract`"
        raise UserError("feature store", str(folder / _METADATA), f"{rule} makes them")


def _result(future: ts.Future | ts.WriteFutures, folder: pathlib.Path) -> Any:
    """The result of a future; TensorStore's errors as a UserError of one line."""
    try:
        return future.result()
    except (ValueError, OSError, NotImplementedError) as error:
        system_errors.reraise(error)
        text = " ".join(str(error).split())
        found = _FILE.search(text)
        path = found.group(1) if found else str(folder)
        reason = _CONTEXT.sub("", text)
        raise UserError("feature store", path, f"cannot be used: {reason}") from error
