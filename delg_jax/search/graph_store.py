"""The similarity graph on disk: its rows in chunks with checksums, which a killed job leaves."""

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
from delg_jax.features.storage.stored_rows import StoredRows
from delg_jax.features.store import FeatureStore
from delg_jax.search.graph import Lists, SimilarityGraph

FORMAT = 1

_ARRAYS = {"similarities": np.float32, "indices": np.int32}
_COMPRESSION = 1  # level of Zstandard
_SUBJECT = "similarity graph"
_HINT = "; --overwrite builds it again"
_FIELDS = json_files.fields(
    {"format": json_files.count, "generation": json_files.text, "images": json_files.count},
    {"first": json_files.text},  # digest of the features; absent in those of earlier versions
)


class GraphStore:
    """The place of the graph of some images.

    The features of some images have a folder of their own, with two arrays; `graph.json` names the
    one that is whole, and is replaced when another is. A chunk is whole or absent, so what is there
    tells what is missing.

    Args:
      folder: of the graph.
      names: of the N images, in order.
      memory_megabytes: larger graphs are read from disk as they are used.
      features: of these images, which the graph is made from; None to compare the names alone.

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
        self._opened: dict[pathlib.Path, SimilarityGraph] = {}

    def __len__(self) -> int:
        """Number of images."""
        return len(self._names)

    def is_whole(self) -> bool:
        """Whether the graph of these images is there; a UserError if what is there is damaged."""
        stored = self._stored()
        return stored is not None and stored["generation"] == self._own.name

    def graph(self) -> SimilarityGraph:
        """The whole graph of these images; a UserError if it is not there, or damaged."""
        if not self.is_whole():
            raise UserError(_SUBJECT, str(self.folder), "is not whole; delg index goes on")
        return self._open(self._own, len(self))

    def before(self) -> SimilarityGraph | None:
        """The whole graph that is there, if it is of the first of these images; else None.

        Raises:
          UserError: if it is damaged.
        """
        stored = self._stored()
        if stored is None or not self._has_first(stored):
            return None
        return self._open(self.folder / stored["generation"], stored["images"])

    def is_stale(self) -> bool:
        """Whether there is a graph that says nothing of these images; errors as `before`."""
        stored = self._stored()
        return stored is not None and not self._has_first(stored)

    def start(self, neighbours: int, block: int) -> None:
        """Makes the arrays, unless they are there.

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
        """The chunks that are still to be written, as ranges of images."""
        arrays = self._arrays(self._own)
        size = arrays[0].chunk_rows
        return [
            range(start, min(start + size, len(self)))
            for number, start in enumerate(range(0, len(self), size))
            if not all(array.chunk_path(number).is_file() for array in arrays)
        ]

    def write(self, run: range, lists: Lists) -> None:
        """Writes one range of `missing`; other processes may write others.

        Args:
          run: of images.
          lists: their similarities float32 and indices int32 [n, r].
        """
        for array, values in zip(self._arrays(self._own), lists, strict=True):
            with _errors_of_graph():
                array.write(slice(run.start, run.stop), values)

    def finish(self) -> None:
        """Declares the graph whole and deletes that of fewer images.

        Raises:
          UserError: if something is missing.
        """
        missing = sum(map(len, self.missing()))
        if missing:
            rule = f"lacks {missing} images; delg index goes on"
            raise UserError(_SUBJECT, str(self.folder), rule)
        for left in self._own.glob("*/*.__lock"):
            left.unlink()  # of writers that were killed
        content = {"format": FORMAT, "generation": self._own.name, "images": len(self)}
        if self._features is not None and len(self):
            content["first"] = self._features.digest_of_first(len(self))
        workdir.write_json(self.folder / "graph.json", content)
        for other in self.folder.iterdir():
            if other.is_dir() and other != self._own:
                shutil.rmtree(other)

    def _stored(self) -> dict[str, Any] | None:
        """What `graph.json` says; None if there is none."""
        path = self.folder / "graph.json"
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
        """Whether a graph is of the first of these images, with the features that they have."""
        count = stored["images"]
        if self._features is None:
            return stored["generation"] == _generation(self._names[:count], "")
        if not 0 < count <= len(self) or "first" not in stored:
            return False
        return stored["first"] == self._features.digest_of_first(count)

    def _arrays(self, place: pathlib.Path, **options: object) -> list[ChunkedArray]:
        with _errors_of_graph():
            return [ChunkedArray(place / name, **options) for name in _ARRAYS]

    def _open(self, place: pathlib.Path, count: int) -> SimilarityGraph:
        """The graph of `count` images in memory if it fits, else as rows on disk; read once."""
        if place in self._opened:
            return self._opened[place]
        arrays = self._arrays(place)
        if {array.shape for array in arrays} != {(count, arrays[0].shape[-1])}:
            rule = f"must have {count} lists, as graph.json says"
            raise UserError(_SUBJECT, str(place), rule + _HINT)
        if sum(array.nbytes for array in arrays) > self._memory * 2**20:
            arrays = self._arrays(place, context=chunked_array.cache(self._memory))
            similarities, indices = map(_rows, arrays)
        else:
            with _errors_of_graph():
                similarities, indices = (array.read(slice(0, array.shape[0])) for array in arrays)
        self._opened[place] = SimilarityGraph(indices, similarities)
        return self._opened[place]


def _generation(names: Sequence[str], source: str) -> str:
    """The folder of the graph of these images: how many they are, and a digest of them."""
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
    """Lets errors of arrays, which speak of feature stores, speak of the graph and its remedy."""
    try:
        yield
    except UserError as error:
        if error.subject != "feature store":
            raise
        raise UserError(_SUBJECT, error.value, error.rule + _HINT) from error
