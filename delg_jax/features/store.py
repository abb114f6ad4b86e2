"""The feature store: what was extracted from N images, in chunks that stand for themselves."""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Self

import numpy as np

from delg_jax.errors import UserError
from delg_jax.features.pca import Pca, load, save
from delg_jax.features.storage import chunked_array, rows
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.index import INDEX_1, read_index, write_index
from delg_jax.features.storage.reading import StoreReading
from delg_jax.features.storage.rows import (
    DELETED,
    EVERY_IMAGE,
    GLOBAL,
    LOCAL,
    LOCAL_ARRAYS,
    WRITTEN,
    Layout,
    Row,
)

FORMAT = 2

_PCA = "pca.npz"
_NAME_BYTES = 64  # widths of the names are multiples of it
_NAME_CHUNK = 65_536  # names in a chunk; only one process writes them


class FeatureStore(StoreReading):
    """Features of N images; opening takes the same time for any N.

    An image has a fixed row; deleted ones keep theirs but are neither counted nor read. All
    methods but `missing` and `write` number the images that are left, from 0.

    Args:
      folder: of the store.
      memory_megabytes: of decoded chunks that are kept in memory, and of blocks that are read.
      whole: whether an unfinished store is refused.

    Attributes:
      folder: of the store.
      layout: of its arrays.

    Raises:
      UserError: if there is no store, or one that is not whole and should be.
    """

    def __init__(
        self, folder: pathlib.Path, memory_megabytes: float = 1024, whole: bool = True
    ) -> None:
        self.folder = folder
        self.memory_megabytes = memory_megabytes
        self.context = chunked_array.cache(memory_megabytes)
        self.reread()
        if whole and not self.is_whole():
            raise UserError("feature store", str(folder), "is not whole; delg extract goes on")

    @classmethod
    def prepare(
        cls,
        folder: pathlib.Path,
        names: Sequence[str],
        layout: Layout,
        memory_megabytes: float = 1024,
    ) -> Self:
        """Makes a store for images, or opens the one that is there, adding images at the end.

        Args:
          folder: of the store.
          names: of all images, in order.
          layout: of the arrays.
          memory_megabytes: as of the class.

        Returns:
          The store; `missing` tells what is still to be written.

        Raises:
          UserError: if the store has other images, or another layout.
        """
        store = cls.open_or_make(folder, layout, memory_megabytes)
        known = store.names
        if list(names[: len(known)]) != known:
            rule = "holds other images, or in another order; --overwrite extracts again"
            raise UserError("feature store", str(folder), rule)
        store.append(names[len(known) :])
        return store

    @classmethod
    def open_or_make(
        cls, folder: pathlib.Path, layout: Layout, memory_megabytes: float = 1024
    ) -> Self:
        """As `prepare`, for whatever images are in the store; none in a new one."""
        if not any((folder / name).is_file() for name in ("store.json", INDEX_1)):
            content = {"images": 0, "name_bytes": 0, "deleted": False, "finished": False}
            write_index(folder, FORMAT, content, layout)
        store = cls(folder, memory_megabytes, whole=False)
        if store.layout != layout:
            rule = f"was made with {store.layout}, not {layout}; --overwrite replaces it"
            raise UserError("feature store", str(folder), rule)
        return store

    def append(self, names: Sequence[str]) -> None:
        """Adds images behind the others; `missing` lists them until they are written."""
        if not names:
            return
        start = self.index["images"]
        stop = start + len(names)
        width = max(self.index["name_bytes"], *(_name_bytes(name) for name in names))
        first, texts = start, list(names)
        if width != self.index["name_bytes"]:  # longer ones move all names to a wider array
            first, texts = 0, [*self._all_names(), *names]
        name = f"names_{width}"
        if self._has(name):
            array = self._array(name)
            array.resize(stop)
        else:
            array = ChunkedArray.create(
                self.folder / name, (stop, width), "uint8", _NAME_CHUNK, self.layout.compression
            )
        array.write(slice(first, stop), rows.pack_texts(texts, width))
        for name in ("global", *EVERY_IMAGE, *LOCAL_ARRAYS):
            if self._has(name):
                self._array(name).resize(stop)
        self._update(images=stop, name_bytes=width, finished=False)

    def delete(self, names: Sequence[str]) -> None:
        """Takes images out; the chunks with their features stay as they are.

        Args:
          names: of images in the store.

        Raises:
          UserError: for a name that is not in the store.
        """
        if not names:
            return
        places = {name: number for number, name in enumerate(self.names)}
        unknown = [name for name in names if name not in places]
        if unknown:
            raise UserError("feature store", str(self.folder), f"has no image {unknown[0]}")
        gone = np.array([places[name] for name in names], np.int64)
        gone = gone if self._kept is None else self._kept[gone]
        self._update(deleted=True)  # first, so that a deletion that is cut short is seen
        self._set_states(np.unique(gone), self._states[np.unique(gone)] | DELETED)
        if self.is_whole():
            self._update(digest=self._digest_now())

    def missing(self) -> list[range]:
        """Runs of rows that are still to be written, none across the border of a chunk."""
        self.reread()
        absent = np.flatnonzero(self._states & (WRITTEN | DELETED) == 0)
        chunks = absent // self.layout.chunk_images
        cuts = np.flatnonzero((np.diff(absent) != 1) | (np.diff(chunks) != 0)) + 1
        runs = np.split(absent, cuts) if len(absent) else []
        return [range(int(run[0]), int(run[-1]) + 1) for run in runs]

    def row_names(self) -> list[str]:
        """Names by row, those of deleted images included."""
        return self._all_names()

    def write(self, run: range, values: Sequence[Row], sizes: np.ndarray | None = None) -> None:
        """Writes the rows of one run of `missing`; other processes may write other chunks.

        Args:
          run: of rows.
          values: for each row the features of its image, or the reason why it was skipped.
          sizes: int [n, 2], rows and columns of pixels that locations refer to; None if unknown.

        Raises:
          UserError: if they are not finite, or cannot be encoded or written.
        """
        rows.require_finite(values, run, self.row_names)
        arrays, states = rows.columns(values, sizes, self.layout)
        place = slice(run.start, run.stop)
        writing = []
        for name, content in arrays.items():
            array = self._array_like(name, content)
            writing.append((array, array.start_writing(place, content)))
        for array, future in writing:
            array.finish_writing(future)
        # The state goes last: it says that the rest is there
        self._array_like("state", states).write(place, states)

    def discard(self, name: str, run: range) -> None:
        """Deletes a chunk and makes its rows missing, so that they can be written again.

        Args:
          name: of the array. Of a chunk of states, deleted images are missing afterwards, too.
          run: rows of the chunk.
        """
        self._update(finished=False)
        if name != "state":
            positions = np.arange(run.start, run.stop)
            self._set_states(positions, self._states[positions] & DELETED)
        array = ChunkedArray(self.folder / name)
        array.chunk_path(run.start // array.chunk_rows).unlink(missing_ok=True)
        self.reread()

    def finish(self) -> None:
        """Declares the store whole.

        Raises:
          UserError: if something is missing.
        """
        missing = self.missing()
        if missing:
            rule = f"lacks {sum(map(len, missing))} images; delg extract goes on"
            raise UserError("feature store", str(self.folder), rule)
        if self.is_whole():
            return
        self._fill_featureless_chunks()
        for left in (*self.folder.glob(".*"), *self.folder.glob("*/*.__lock")):
            left.unlink()  # of writers that were killed
        for array in self.folder.glob("names_*"):
            if array != self._names_folder():
                shutil.rmtree(array)
        self._update(finished=True, digest=self._digest_now())

    def write_pca(self, pca: Pca) -> None:
        """Keeps the projection that this store's descriptors went through."""
        save(pca, self.folder / _PCA)

    def read_pca(self) -> Pca | None:
        """The projection kept by `write_pca`, or None; a UserError if it is damaged."""
        return load(self.folder / _PCA)

    def _fill_featureless_chunks(self) -> None:
        """Writes zeros where no image of a chunk has features, so that no chunk file is absent."""
        size, images = self.layout.chunk_images, self.index["images"]
        for name in ("global", *LOCAL_ARRAYS):
            if not self._has(name):
                continue
            array = self._array(name)
            flag = GLOBAL if name == "global" else LOCAL
            for number, start in enumerate(range(0, images, size)):
                empty = not (self._states[start : start + size] & flag).any()
                if empty and not array.chunk_path(number).is_file():
                    stop = min(start + size, images)
                    zeros = np.zeros((stop - start, *array.shape[1:]), array.dtype)
                    array.write(slice(start, stop), zeros)

    def _set_states(self, positions: np.ndarray, states: np.ndarray) -> None:
        """Writes states at ascending positions, chunk by chunk."""
        whole, size = self._states.copy(), self.layout.chunk_images
        whole[positions] = states
        array = self._array_like("state", whole)
        for chunk in np.unique(positions // size):
            place = slice(int(chunk) * size, min((int(chunk) + 1) * size, len(whole)))
            array.write(place, whole[place])
        self.reread()

    def _array_like(self, name: str, content: np.ndarray) -> ChunkedArray:
        """An array of the store, made for rows [n, ...] as `content` if it is absent."""
        if not self._has(name):
            shape = (self.index["images"], *content.shape[1:])
            chunk, level = self.layout.chunk_images, self.layout.compression
            self._arrays[name] = ChunkedArray.create(
                self.folder / name, shape, content.dtype, chunk, level, self.context
            )
        array = self._array(name)
        if array.shape[1:] != content.shape[1:]:
            rule = f"has {name} of shape {array.shape[1:]}, a new image {content.shape[1:]}"
            raise UserError("feature store", str(self.folder), rule)
        return array

    def _update(self, **values: int | bool | str) -> None:
        """Writes the index; a digest is kept only if it is among the values."""
        content = {**self.index, "digest": "", **values}
        write_index(self.folder, FORMAT, content, self.layout)
        self.reread()

    def reread(self) -> None:
        """Forgets what was read, and reads the index again."""
        self.index = read_index(self.folder, FORMAT)
        self._arrays = {}
        for name in ("names", "_kept", "_states"):
            self.__dict__.pop(name, None)


def _name_bytes(name: str) -> int:
    return -(-max(len(name.encode()), 1) // _NAME_BYTES) * _NAME_BYTES
