"""The similarity graph on disk, in chunks with checksums, so that a killed job can resume."""

import contextlib
import hashlib
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from delg_jax import json_files, workdir
from delg_jax.errors import UserError
from delg_jax.features.storage import chunked_array
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.rows import StoredRows
from delg_jax.features.store import FeatureStore
from delg_jax.search.graph import Lists, SimilarityGraph

FORMAT = 1
HEADER = "graph.json"

_ARRAYS = {"similarities": np.dtype(np.float32), "indices": np.dtype(np.int32)}
_COMPRESSION = 1  # level of Zstandard
_SUBJECT = "similarity graph"
_HINT = "; --overwrite rebuilds it"
_FIELDS = json_files.fields(
    {"format": json_files.count, "generation": json_files.text, "images": json_files.count},
    {"first": json_files.text},  # digest of the features; absent in those of earlier versions
)


class GraphStore:
    """The files of the graph of some images.

    Each set of images and features has a folder of its own with two arrays. `graph.json` names the
    folder that is complete, and is replaced when another one is. A chunk is complete or absent, so
    the files tell what is missing.

    Args:
      folder: of the graph.
      names: of the N images, in order.
      memory_megabytes: larger graphs stay on disk and are read as needed.
      features: of these images, which the graph is made from; None to compare only the names.

    Attributes:
      folder: of the graph.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        names: Sequence[str],
        memory_megabytes: float = 1024,
        features: FeatureStore | None = None,
    ) -> None:
        self.folder = folder
        self._names = names
        self._memory = memory_megabytes
        self._features = features
        self._own = folder / _generation(names, "" if features is None else features.digest())
        self._graphs: dict[pathlib.Path, SimilarityGraph] = {}

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def is_whole(self) -> bool:
        """Whether the graph of these images is complete; a UserError if it is damaged."""
        stored = self._stored()
        return stored is not None and stored["generation"] == self._own.name

    def graph(self) -> SimilarityGraph:
        """The graph of these images; a UserError if it is incomplete or damaged."""
        if not self.is_whole():
            raise UserError(_SUBJECT, str(self.folder), "is incomplete; run delg index to resume")
        return self._open(self._own, len(self))

    def previous(self) -> SimilarityGraph | None:
        """The stored graph if it is complete and covers the first of these images, else None.

        Raises:
          UserError: if it is damaged.
        """
        stored = self._stored()
        if stored is None or not self._has_first(stored):
            return None
        return self._open(self.folder / stored["generation"], stored["images"])

    def is_stale(self) -> bool:
        """Whether there is a graph of other images or features; raises as `previous`."""
        stored = self._stored()
        return stored is not None and not self._has_first(stored)

    def start(self, neighbours: int, block: int) -> None:
        """Creates the arrays, unless they are there.

        Args:
          neighbours: kept for each image, r.
          block: images in a chunk.
        """
        for name, dtype in _ARRAYS.items():
            with _errors_of_graph():
                ChunkedArray.create(
                    self._own / name, (len(self), neighbours), dtype, block, _COMPRESSION
                )

    def missing(self) -> list[range]:
        """The chunks still to be written, as ranges of images."""
        arrays = self._arrays(self._own)
        size = arrays[0].chunk_rows
        return [
            range(start, min(start + size, len(self)))
            for number, start in enumerate(range(0, len(self), size))
            if not all(array.chunk_path(number).is_file() for array in arrays)
        ]

    def write(self, chunk: range, lists: Lists) -> None:
        """Writes one chunk of `missing`; other processes may write others.

        Args:
          chunk: of images.
          lists: their similarities float32 and indices int32 [n, r].
        """
        for array, values in zip(self._arrays(self._own), lists, strict=True):
            with _errors_of_graph():
                array.write(slice(chunk.start, chunk.stop), values)

    def finish(self) -> None:
        """Marks the graph as complete and deletes that of fewer images.

        Raises:
          UserError: if something is missing.
        """
        missing = sum(map(len, self.missing()))
        if missing:
            rule = f"lacks {missing} images; run delg index to resume"
            raise UserError(_SUBJECT, str(self.folder), rule)
        for lock in self._own.glob("*/*.__lock"):
            lock.unlink()  # of writers that were killed
        content = {"format": FORMAT, "generation": self._own.name, "images": len(self)}
        if self._features is not None and len(self):
            content["first"] = self._features.digest_of_first(len(self))
        workdir.write_json(self.folder / HEADER, content)
        for other in self.folder.iterdir():
            if other.is_dir() and other != self._own:
                shutil.rmtree(other)

    def _stored(self) -> dict[str, Any] | None:
        """What `graph.json` says; None if there is none."""
        path = self.folder / HEADER
        try:
            stored = json_files.read(path, _SUBJECT, _FIELDS)
        except UserError as error:
            rule = f"must describe a graph of format {FORMAT} ({error.rule})"
            raise UserError(_SUBJECT, str(path), rule + _HINT) from error
        if stored is not None and stored["format"] != FORMAT:
            rule = f"must describe a graph of format {FORMAT}"
            raise UserError(_SUBJECT, str(path), rule + _HINT)
        return stored

    def _has_first(self, stored: dict[str, Any]) -> bool:
        """Whether the stored graph covers the first of these images, with the same features."""
        count = stored["images"]
        if self._features is None:
            return stored["generation"] == _generation(self._names[:count], "")
        if not 0 < count <= len(self) or "first" not in stored:
            return False
        return stored["first"] == self._features.digest_of_first(count)

    def _arrays(self, place: pathlib.Path, context: Any = None) -> list[ChunkedArray]:
        with _errors_of_graph():
            return [ChunkedArray(place / name, context) for name in _ARRAYS]

    def _open(self, place: pathlib.Path, count: int) -> SimilarityGraph:
        """The graph of `count` images in memory if it fits, else as rows on disk; read once."""
        if place in self._graphs:
            return self._graphs[place]
        arrays = self._arrays(place)
        if {array.shape for array in arrays} != {(count, arrays[0].shape[-1])}:
            rule = f"must have {count} rows, the images in graph.json"
            raise UserError(_SUBJECT, str(place), rule + _HINT)
        similarities: np.ndarray | StoredRows
        indices: np.ndarray | StoredRows
        if sum(array.nbytes for array in arrays) > self._memory * 2**20:
            arrays = self._arrays(place, context=chunked_array.cache(self._memory))
            similarities, indices = map(_rows, arrays)
        else:
            with _errors_of_graph():
                similarities, indices = (array.read(slice(0, array.shape[0])) for array in arrays)
        self._graphs[place] = SimilarityGraph(indices, similarities)
        return self._graphs[place]


def _generation(names: Sequence[str], source: str) -> str:
    """The folder name of the graph of these images: their number, and a digest of their names."""
    text = chr(0).join([*names, source] if source else names)
    digest = hashlib.sha256(text.encode(errors="surrogateescape")).hexdigest()
    return f"{len(names)}_{digest[:16]}"


def _rows(array: ChunkedArray) -> StoredRows:
    def read(wanted: slice | np.ndarray) -> np.ndarray:
        with _errors_of_graph():
            return array.read(wanted)

    return StoredRows(read, array.shape, array.dtype)


@contextlib.contextmanager
def _errors_of_graph() -> Iterator[None]:
    """Makes the errors of arrays, which name a feature store, name the graph and what to do."""
    try:
        yield
    except UserError as error:
        if error.subject != "feature store":
            raise
        raise UserError(_SUBJECT, error.value, error.rule + _HINT) from error
