"""What can be read from a feature store, whole where it fits in memory, else row by row."""

import functools
import pathlib
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorstore as ts

from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings, rows
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.encodings import Codes
from delg_jax.features.storage.index import digest, digest_of_first
from delg_jax.features.storage.stored_rows import StoredRows

Rows = np.ndarray | StoredRows

_BLOCK_SHARE = 8  # a block that is decoded takes at most this part of the memory


class StoreReading:
    """The reading half of a `FeatureStore`, which describes what both share.

    Attributes:
      folder: of the store.
      memory_megabytes: that reading may take.
      index: what `store.json` says.
      context: TensorStore's, with the cache.
    """

    folder: pathlib.Path
    memory_megabytes: float
    index: dict[str, Any]
    context: ts.Context
    _arrays: dict[str, ChunkedArray]

    @property
    def layout(self) -> rows.Layout:
        """What decides the bytes of the store beside the features."""
        return rows.Layout(**self.index["layout"])

    def __len__(self) -> int:
        """Number of images."""
        return self.index["images"] if self._kept is None else len(self._kept)

    @functools.cached_property
    def names(self) -> list[str]:
        """Of the images, in order."""
        names = self._all_names()
        return names if self._kept is None else [names[position] for position in self._kept]

    def skipped(self) -> dict[str, str]:
        """Names of the images that could not be used, with the reasons.

        Of several skipped images of one name, all but the first have their number behind it.
        """
        found: dict[str, str] = {}
        for place, reason in self.skipped_places().items():
            name = self.names[place]
            found[f"{name} (image {place})" if name in found else name] = reason
        return found

    def skipped_places(self) -> dict[int, str]:
        """Numbers of the images that could not be used, with the reasons."""
        places = np.flatnonzero(self._states[self._positions(slice(0, len(self)))] & rows.SKIPPED)
        if not len(places):
            return {}
        packed = self._array("reasons").read(self._positions(places))
        return dict(zip(places.tolist(), rows.unpack_texts(packed), strict=True))

    def states(self) -> np.ndarray:
        """Flags uint8 of every row, those of deleted images included; see `rows`."""
        return self._states

    def origins(self) -> np.ndarray:
        """What every row was made from, `ORIGIN` [rows]; zeros where nobody knows."""
        if not self._has("origins"):
            return np.zeros(self.index["images"], rows.ORIGIN)
        packed = self._array("origins").read(slice(0, self.index["images"]), fill=True)
        return np.ascontiguousarray(packed).view(rows.ORIGIN)[:, 0]

    def present(self, kind: str) -> np.ndarray:
        """Which images have anything to compare: bool [N]; a skipped one has nothing.

        Args:
          kind: of the features, global or local.
        """
        flag = {"global": rows.GLOBAL, "local": rows.LOCAL}[kind]
        everything = self._positions(slice(0, len(self)))
        found = (self._states[everything] & flag) != 0
        if kind == "local" and found.any():
            found &= self._array("counts").read(everything) > 0
        return found

    def sizes(self) -> np.ndarray:
        """Rows and columns int32 [N, 2], in pixels, that locations refer to; 0 if unknown."""
        return self._array("sizes").read(self._positions(slice(0, len(self))))

    def is_whole(self) -> bool:
        """Whether every image is there."""
        return self.index["finished"]

    def digest(self) -> str:
        """What identifies names and content: 32 hexadecimal digits, known once it is whole.

        Equal for equal stores wherever they lie, and however often they were cut short; another
        one after images were added, deleted or extracted again with another result.

        Raises:
          UserError: if the store is not whole, or damaged.
        """
        if not self.is_whole():
            raise UserError("feature store", str(self.folder), "is not whole; delg extract goes on")
        if not self.index["digest"]:  # of an earlier version, or a deletion was cut short
            self.index["digest"] = self._digest_now()
        return self.index["digest"]

    def digest_of_first(self, count: int) -> str:
        """As `digest`, of the first images: the same one after others were added behind them.

        Args:
          count: of these images, at least 1 and at most N.
        """
        rows = count if self._kept is None else int(self._kept[count - 1]) + 1
        names = sorted(self._expected() - {self._names_folder().name})
        arrays = ((name, self._array(name)) for name in names)
        return digest_of_first(self.names[:count], arrays, rows)

    def global_descriptors(self) -> Rows:
        """The global descriptors.

        Returns:
          float32 [N, D], unit norm; a skipped image has zeros. Rows on disk if the array would
          take more than `memory_megabytes`.

        Raises:
          UserError: if the store was made without global descriptors, or is damaged.
        """
        if not self._has("global"):
            if self.all_skipped():
                return np.zeros((len(self), 0), np.float32)
            rule = (
                "holds no global descriptors; set config.extract.imported_global, or compute them"
            )
            raise UserError("feature store", str(self.folder), rule)
        array = self._array("global")

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            return array.read(self._positions(wanted)).astype(np.float32)

        return self._held(StoredRows(read, (len(self), array.shape[1]), np.float32))

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """The strongest features of every image.

        Args:
          count: K, features per image at most; 0 for as many as the fullest image has.
          packed: whether descriptors stay codes, int8 or packed signs, if they are on disk.

        Returns:
          LocalFeatures [N, K], decoded descriptors in float32 or float16. Rows on disk if the
          descriptors would take more than `memory_megabytes`.

        Raises:
          UserError: if the store was made without local features, or is damaged.
        """
        if not self._has("descriptors"):
            rule = "holds no local features; extract with config.model.local_head=True, or set "
            rule += "config.extract.imported_local"
            raise UserError("feature store", str(self.folder), rule)
        counts = self._array("counts").read(self._positions(slice(0, len(self))))
        fullest = max(int(counts.max(initial=0)), 1)
        features = min(count or fullest, fullest)

        def read_mask(wanted: slice | np.ndarray) -> np.ndarray:
            return np.arange(features)[None, :] < counts[wanted][:, None]

        fields = (
            *(self._plain_rows(name, features) for name in LocalFeatures._fields[:3]),
            self._descriptor_rows(features, packed),
            StoredRows(read_mask, (len(self), features), bool),
        )
        if sum(field.nbytes for field in fields) <= self._memory:
            fields = tuple(self._held(field) for field in fields)
        return LocalFeatures(*fields)

    def arrays(self) -> Iterator[tuple[str, ChunkedArray]]:
        """The arrays of the store by name, those of names and states among them.

        Raises:
          UserError: if the description of one is absent, or does not fit the store.
        """
        found = {path.name for path in self.folder.iterdir() if path.is_dir()}
        for name in sorted(found | self._expected()):
            array = ChunkedArray(self.folder / name)
            if array.shape[0] != self.index["images"]:
                path = str(array.folder / "zarr.json")
                rule = f"must have {self.index['images']} rows, as the store, not {array.shape[0]}"
                raise UserError("feature store", path, rule)
            yield name, array

    def _digest_now(self) -> str:
        """The digest of what is on disk."""
        names = sorted(self._expected())
        return digest((name, ChunkedArray(self.folder / name)) for name in names)

    def _expected(self) -> set[str]:
        """Names of the arrays that the images must have."""
        if not self.index["images"]:
            return set()
        names = {self._names_folder().name, *rows.EVERY_IMAGE}
        try:
            flags = np.bitwise_or.reduce(self._states)
        except UserError:  # damaged; whoever reads them from `arrays` learns where
            return names
        if flags & rows.GLOBAL:
            names.add("global")
        if flags & rows.LOCAL:
            names.update(rows.LOCAL_ARRAYS)
            if self.layout.local_encoding != "int8":
                names.discard("descriptor_scales")
        return names

    def _plain_rows(self, name: str, features: int) -> StoredRows:
        array = self._array(name)

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            return array.read(self._positions(wanted))[:, :features]

        return StoredRows(read, (len(self), features, *array.shape[2:]), array.dtype)

    def _descriptor_rows(self, features: int, packed: bool) -> StoredRows:
        encoding = self.layout.local_encoding
        values = self._array("descriptors")
        if values.dtype != encodings.STORED[encoding]:
            path, rule = str(values.folder), f"holds {values.dtype}, and no {encoding} encoding"
            raise UserError("feature store", path, rule)
        scales = self._array("descriptor_scales") if encoding == "int8" else None

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            positions = self._positions(wanted)
            codes = values.read(positions)[:, :features]
            if packed:
                return codes
            steps = None if scales is None else scales.read(positions)[:, :features]
            return encodings.decode(Codes(codes, steps), encoding)

        width = values.shape[2]
        if packed or encoding.startswith("float"):
            return StoredRows(read, (len(self), features, width), values.dtype)
        dim = 8 * width if encoding == "sign" else width
        return StoredRows(read, (len(self), features, dim), np.float16)

    def _held(self, stored: StoredRows) -> Rows:
        """The rows in memory, if they fit."""
        if stored.nbytes > self._memory:
            return stored
        return stored.in_memory(self._memory / _BLOCK_SHARE)

    @property
    def _memory(self) -> float:
        return self.memory_megabytes * 2**20

    def _positions(self, wanted: slice | np.ndarray) -> slice | np.ndarray:
        """Where images stand among all that ever were in the store."""
        return wanted if self._kept is None else self._kept[wanted]

    @functools.cached_property
    def _kept(self) -> np.ndarray | None:
        """Positions of the images that were not deleted; None if none was."""
        if not self.index["deleted"]:
            return None
        return np.flatnonzero((self._states & rows.DELETED) == 0)

    @functools.cached_property
    def _states(self) -> np.ndarray:
        """State uint8 of every image that ever was in the store."""
        if not self._has("state"):
            return np.zeros(self.index["images"], np.uint8)
        return self._array("state").read(slice(0, self.index["images"]), fill=True)

    def _all_names(self) -> list[str]:
        """Names of all images that ever were in the store."""
        if not self.index["images"]:
            return []
        array = ChunkedArray(self._names_folder())
        return rows.unpack_texts(array.read(slice(0, self.index["images"])))

    def all_skipped(self) -> bool:
        """Whether no image could be used."""
        return bool(((self._states & (rows.SKIPPED | rows.DELETED)) != 0).all())

    def _names_folder(self) -> pathlib.Path:
        return self.folder / f"names_{self.index['name_bytes']}"

    def _has(self, name: str) -> bool:
        return name in self._arrays or (self.folder / name / "zarr.json").is_file()

    def _array(self, name: str) -> ChunkedArray:
        if name not in self._arrays:
            self._arrays[name] = ChunkedArray(self.folder / name, self.context)
        return self._arrays[name]
