"""The writing half of a feature store: rows, and what keeps them consistent."""

from collections.abc import Sequence

import numpy as np

from delg_jax.errors import UserError
from delg_jax.features.storage import rows
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.index import FORMAT, read_index, write_index
from delg_jax.features.storage.reading import StoreReading
from delg_jax.features.storage.rows import DELETED, GLOBAL, LOCAL, LOCAL_ARRAYS, Row


class StoreWriting(StoreReading):
    """What a `FeatureStore`, which describes it, writes into rows that it has."""

    def write(
        self,
        run: range,
        values: Sequence[Row],
        sizes: np.ndarray | None = None,
        origins: np.ndarray | None = None,
    ) -> None:
        """Writes the rows of one run of `missing`; other processes may write other chunks.

        Args:
          run: of rows.
          values: for each row the features of its image, or the reason why it was skipped.
          sizes: int [n, 2], rows and columns of pixels that locations refer to; None if unknown.
          origins: what the features were made from, `ORIGIN` [n]; None if unknown.

        Raises:
          UserError: if they are not finite, or cannot be encoded or written.
        """
        rows.require_finite(values, run, self.row_names)
        arrays, states = rows.columns(values, sizes, self.layout)
        place = slice(run.start, run.stop)
        if origins is not None:
            arrays["origins"] = rows.pack_origins(origins)
        arrays |= self._zeros_for(run, arrays)
        writing = []
        for name, content in arrays.items():
            array = self._array_like(name, content)
            writing.append((array, array.start_writing(place, content)))
        for array, future in writing:
            array.finish_writing(future)
        # The state goes last: it says that the rest is there
        self._array_like("state", states).write(place, states)

    def forget(self, positions: np.ndarray) -> None:
        """Makes rows missing, at ascending positions int [n], so that they are written again."""
        self._update(finished=False)
        self._set_states(positions, self._states[positions] & DELETED)

    def note_origins(self, positions: np.ndarray, origins: np.ndarray) -> None:
        """Keeps what rows were made from, as `ORIGIN` [n], at ascending positions int [n]."""
        if not len(positions):
            return
        whole = self.origins()
        whole[positions] = origins
        if not self._has("origins"):
            positions = np.arange(len(whole))  # no chunk of a whole store may be absent
        self._set_rows("origins", rows.pack_origins(whole), positions)

    def _fill_featureless_chunks(self) -> None:
        """Writes zeros where no image of a chunk has anything, so that no chunk file is absent."""
        size, images = self.layout.chunk_images, self.index["images"]
        flags = {"global": GLOBAL, "origins": 0, **dict.fromkeys(LOCAL_ARRAYS, LOCAL)}
        for name, flag in flags.items():
            if not self._has(name):
                continue
            array = self._array(name)
            for number, start in enumerate(range(0, images, size)):
                empty = not (self._states[start : start + size] & flag).any()
                if empty and not array.chunk_path(number).is_file():
                    stop = min(start + size, images)
                    zeros = np.zeros((stop - start, *array.shape[1:]), array.dtype)
                    array.write(slice(start, stop), zeros)

    def _set_states(self, positions: np.ndarray, states: np.ndarray) -> None:
        """Writes states at ascending positions."""
        whole = self._states.copy()
        whole[positions] = states
        self._set_rows("state", whole, positions)
        self.reread()

    def _set_rows(self, name: str, whole: np.ndarray, positions: np.ndarray) -> None:
        """Writes those chunks of an array, given as a whole, in which some positions lie."""
        array, size = self._array_like(name, whole), self.layout.chunk_images
        for chunk in np.unique(positions // size):
            place = slice(int(chunk) * size, min((int(chunk) + 1) * size, len(whole)))
            array.write(place, whole[place])

    def _zeros_for(self, run: range, arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """Zeros in the place of what rows had before they were forgotten, and have no more."""
        absent = {}
        for name in ("global", "origins", *LOCAL_ARRAYS):
            if name in arrays or not self._has(name):
                continue
            array = self._array(name)
            if array.chunk_path(run.start // array.chunk_rows).is_file():
                absent[name] = np.zeros((len(run), *array.shape[1:]), array.dtype)
        return absent

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
