"""The feature store: what was extracted from N images, in chunks that stand for themselves."""

import pathlib
import shutil
from collections.abc import Sequence
from typing import Self

import numpy as np

from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.pca import Pca
from delg_jax.features.storage import chunked_array, rows
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.index import FORMAT, INDEX_1, write_index
from delg_jax.features.storage.rows import DELETED, EVERY_IMAGE, LOCAL_ARRAYS, WRITTEN, Layout
from delg_jax.features.storage.writing import StoreWriting

_PCA = "pca.npz"
_NAME_BYTES = 64  # widths of the names are multiples of it
_NAME_CHUNK = 65_536  # names in a chunk; only one process writes them


class FeatureStore(StoreWriting):
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
        for name in ("global", "origins", *EVERY_IMAGE, *LOCAL_ARRAYS):
            if self._has(name):
                self._array(name).resize(stop)
        self._update(images=stop, name_bytes=width, finished=False)

    def delete(self, names: Sequence[str]) -> None:
        """Takes images out; the chunks with their features stay as they are.

        Args:
          names: of images in the store; all that have such a name go.

        Raises:
          UserError: for a name that is not in the store.
        """
        if not names:
            return
        known, wanted = set(self.names), set(names)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError("feature store", str(self.folder), f"has no image {unknown[0]}")
        gone = np.flatnonzero([name in wanted for name in self.names])
        gone = gone if self._kept is None else self._kept[gone]
        self._update(deleted=True)  # first, so that a deletion that is cut short is seen
        self._set_states(gone, self._states[gone] | DELETED)
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

    def discard(self, name: str, run: range) -> None:
        """Deletes a chunk and makes its rows missing, so that they can be written again.

        Args:
          name: of the array. Of a chunk of states, deleted images are missing afterwards, too.
          run: rows of the chunk.
        """
        if name != "state":
            self.forget(np.arange(run.start, run.stop))
        self._update(finished=False)
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

    def write_pca(self, projection: Pca, fitted_on: Sequence[str] = ()) -> None:
        """Keeps the projection that this store's descriptors went through.

        Args:
          projection: of local descriptors.
          fitted_on: names of the images of this store that decided it; none if it was given.
        """
        pca.save(projection, self.folder / _PCA, fitted_on)

    def read_pca(self) -> Pca | None:
        """The projection kept by `write_pca`, or None; a UserError if it is damaged."""
        return pca.load(self.folder / _PCA)

    def projection_names(self) -> list[str]:
        """Names of the images of this store that decided its projection; none if none did."""
        return pca.fitted_on(self.folder / _PCA)


def _name_bytes(name: str) -> int:
    return -(-max(len(name.encode()), 1) // _NAME_BYTES) * _NAME_BYTES
