"""The feature store: features of N images on disk, in chunks with checksums."""

import contextlib
import functools
import pathlib
import shutil
from collections.abc import Iterator, Sequence
from typing import Self

import numpy as np

from delg_jax.errors import UserError
from delg_jax.features import pca
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.pca import Pca
from delg_jax.features.storage import chunked_array, encodings, index
from delg_jax.features.storage.chunked_array import ChunkedArray
from delg_jax.features.storage.encodings import Codes
from delg_jax.features.storage.index import INDEX_1, read_index, write_index
from delg_jax.features.storage.rows import (
    DELETED,
    EVERY_IMAGE,
    FEATURE_ARRAYS,
    GLOBAL,
    LOCAL,
    LOCAL_ARRAYS,
    ORIGIN,
    SKIPPED,
    WRITTEN,
    Layout,
    Row,
    StoredRows,
    pack_origins,
    pack_rows,
    pack_texts,
    require_finite,
    unpack_texts,
)

Rows = np.ndarray | StoredRows

_PCA = "pca.npz"
_NAME_BYTES = 64  # names are padded to a multiple of it
_NAME_CHUNK = 65_536  # names in a chunk; only one process writes them
_PART_BYTES = 2**16  # of features that are read together: of some images, or the strongest of one
_BLOCK_SHARE = 8  # a block that is decoded takes at most this part of the memory


class FeatureStore:
    """Features of N images; opening takes the same time for any N.

    An image has a fixed row. Deleted images keep their rows but are neither counted nor read. All
    methods number the images that are not deleted from 0, except those that speak of rows.

    Args:
      folder: of the store.
      memory_megabytes: for decoded chunks that stay in memory, and for blocks that are read.
      whole: whether an unfinished store is refused.

    Attributes:
      folder: of the store.
      memory_megabytes: as given.
      index: content of `store.json`.
      context: TensorStore's, with the cache.

    Raises:
      UserError: if there is no store, or it is not whole although `whole` is set.
    """

    def __init__(
        self, folder: pathlib.Path, memory_megabytes: float = 1024, whole: bool = True
    ) -> None:
        self.folder = folder
        self.memory_megabytes = memory_megabytes
        self.context = chunked_array.cache(memory_megabytes)
        self.reload()
        if whole and not self.is_whole():
            raise UserError("feature store", str(folder), "is not whole; delg extract resumes it")

    @classmethod
    def prepare(
        cls,
        folder: pathlib.Path,
        names: Sequence[str],
        layout: Layout,
        memory_megabytes: float = 1024,
    ) -> Self:
        """Creates a store for images, or opens the existing one and appends new images.

        Args:
          folder: of the store.
          names: of all images, in order.
          layout: of the arrays.
          memory_megabytes: as of the class.

        Returns:
          The store; `missing` lists the rows that are not written yet.

        Raises:
          UserError: if the store holds other images or has another layout.
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
        """Opens the store with the images it has, or creates one without images."""
        if not any((folder / name).is_file() for name in ("store.json", INDEX_1)):
            content = {"images": 0, "name_bytes": 0, "deleted": False, "finished": False}
            write_index(folder, content, layout)
        store = cls(folder, memory_megabytes, whole=False)
        if store.layout != layout:
            rule = f"was made with {store.layout}, not {layout}; --overwrite replaces it"
            raise UserError("feature store", str(folder), rule)
        return store

    @property
    def layout(self) -> Layout:
        """Settings that the bytes of the store depend on, apart from the features."""
        return Layout(**self.index["layout"])

    def __len__(self) -> int:
        """Number of images, without deleted ones."""
        return self.index["images"] if self._kept_rows is None else len(self._kept_rows)

    @functools.cached_property
    def names(self) -> list[str]:
        """Names of the images, in order."""
        names = self.row_names()
        return names if self._kept_rows is None else [names[row] for row in self._kept_rows]

    def row_names(self) -> list[str]:
        """Names by row, including deleted images."""
        if not self.index["images"]:
            return []
        array = ChunkedArray(self._names_folder())
        return unpack_texts(array.read(slice(0, self.index["images"])))

    def is_whole(self) -> bool:
        """Whether the features of every image are stored."""
        return self.index["finished"]

    def all_skipped(self) -> bool:
        """Whether no image could be used."""
        return bool(((self._states & (SKIPPED | DELETED)) != 0).all())

    def skipped(self) -> dict[str, str]:
        """Reasons for skipped images, by name.

        If several skipped images share a name, all but the first get their number appended.
        """
        reasons: dict[str, str] = {}
        for number, reason in self.skipped_places().items():
            name = self.names[number]
            reasons[f"{name} (image {number})" if name in reasons else name] = reason
        return reasons

    def skipped_places(self) -> dict[int, str]:
        """Reasons for skipped images, by number."""
        places = np.flatnonzero(self._states[self._to_rows(slice(0, len(self)))] & SKIPPED)
        if not len(places):
            return {}
        packed = self._array("reasons").read(self._to_rows(places))
        return dict(zip(places.tolist(), unpack_texts(packed), strict=True))

    def present(self, kind: str) -> np.ndarray:
        """Which images have features to compare, bool [N]; skipped images have none.

        Args:
          kind: `global` or `local`.
        """
        flag = {"global": GLOBAL, "local": LOCAL}[kind]
        rows = self._to_rows(slice(0, len(self)))
        found = (self._states[rows] & flag) != 0
        if kind == "local" and found.any():
            found &= self._array("counts").read(rows) > 0
        return found

    def sizes(self) -> np.ndarray:
        """Height and width in pixels that locations refer to, int32 [N, 2]; 0 if unknown."""
        return self._array("sizes").read(self._to_rows(slice(0, len(self))))

    def states(self) -> np.ndarray:
        """Flags of every row, uint8, including deleted images; see `storage.rows`."""
        return self._states

    def origins(self) -> np.ndarray:
        """The image that each row was extracted from, `ORIGIN` [rows]; zeros if unknown."""
        if not self._has("origins"):
            return np.zeros(self.index["images"], ORIGIN)
        packed = self._array("origins").read(slice(0, self.index["images"]), fill=True)
        return np.ascontiguousarray(packed).view(ORIGIN)[:, 0]

    def missing(self) -> list[range]:
        """Runs of rows that are not written yet; no run crosses a chunk boundary."""
        self.reload()
        absent = np.flatnonzero(self._states & (WRITTEN | DELETED) == 0)
        chunks = absent // self.layout.chunk_images
        cuts = np.flatnonzero((np.diff(absent) != 1) | (np.diff(chunks) != 0)) + 1
        runs = np.split(absent, cuts) if len(absent) else []
        return [range(int(run[0]), int(run[-1]) + 1) for run in runs]

    def arrays(self) -> Iterator[tuple[str, ChunkedArray]]:
        """Yields all arrays of the store by name, including names and states.

        Of a store that is not whole, arrays may have more rows than it has images.

        Raises:
          UserError: if the metadata of an array is missing or does not match the store.
        """
        found = {path.name for path in self.folder.iterdir() if path.is_dir()}
        if not self.is_whole():  # an interrupted call may have left names of another width
            found = {name for name in found if not name.startswith("names_")}
        for name in sorted(found | self._expected_arrays()):
            if not self.is_whole() and not self._has(name):
                continue
            array = ChunkedArray(self.folder / name)
            if self.is_whole() and array.shape[0] != self.index["images"]:
                path = str(array.folder / "zarr.json")
                rule = f"must have {self.index['images']} rows, as the store, not {array.shape[0]}"
                raise UserError("feature store", path, rule)
            yield name, array

    def digest(self) -> str:
        """Digest of names and features, 32 hexadecimal digits.

        It does not depend on where the store is or how often writing was interrupted. It changes
        when images are added, deleted, or extracted again with another result.

        Raises:
          UserError: if the store is not whole, or damaged.
        """
        if not self.is_whole():
            raise UserError(
                "feature store", str(self.folder), "is not whole; delg extract resumes it"
            )
        if not self.index["digest"]:  # by an earlier version, or interrupted deletion
            self.index["digest"] = self._digest_now()
        return self.index["digest"]

    def record_digest(self) -> None:
        """Stores the digest, which an interrupted deletion leaves out."""
        self._update(digest=self.digest())

    def digest_of_first(self, count: int) -> str:
        """Digest of the first images; appending images does not change it.

        Args:
          count: number of images, from 1 to N.
        """
        rows = count if self._kept_rows is None else int(self._kept_rows[count - 1]) + 1
        names = sorted(self._expected_arrays() - {self._names_folder().name})
        arrays = ((name, self._array(name)) for name in names)
        return index.digest_of_first(self.names[:count], arrays, rows)

    def digest_of_rows(self, rows: int) -> str:
        """Digest of the features in the first rows; appending and deleting do not change it."""
        names = sorted(self._expected_arrays() - {self._names_folder().name, "state"})
        return index.digest_of_first([], ((name, self._array(name)) for name in names), rows)

    def global_descriptors(self) -> Rows:
        """Returns the global descriptors.

        Returns:
          float32 [N, D], unit norm, zeros for skipped images. Read from disk on access if the
          array would take more than `memory_megabytes`.

        Raises:
          UserError: if the store has no global descriptors or is damaged.
        """
        if not self._has("global"):
            if self.all_skipped():
                return np.zeros((len(self), 0), np.float32)
            rule = "holds no global descriptors; compute them, or set "
            rule += "config.extract.imported_global"
            raise UserError("feature store", str(self.folder), rule)
        array = self._array("global")

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            return array.read(self._to_rows(wanted)).astype(np.float32)

        stored = StoredRows(read, (len(self), array.shape[1]), np.float32)
        if stored.nbytes <= self._memory_bytes:
            return stored.in_memory(self._block_bytes)
        return stored

    def local_features(self, count: int, packed: bool = False) -> LocalFeatures:
        """Returns the strongest features of every image.

        Args:
          count: K, maximum per image; 0 for as many as the image with the most features has.
          packed: whether int8 or sign descriptors are returned as stored, without decoding.

        Returns:
          LocalFeatures [N, K], decoded descriptors in float32 or float16. Read from disk on
          access if they would take more than `memory_megabytes`.

        Raises:
          UserError: if the store has no local features or is damaged.
        """
        if not self._has("descriptors"):
            rule = "holds no local features; extract with config.model.local_head=True, or set "
            rule += "config.extract.imported_local"
            raise UserError("feature store", str(self.folder), rule)
        counts = self._array("counts").read(self._to_rows(slice(0, len(self))))
        fullest = max(int(counts.max(initial=0)), 1)
        features = min(count or fullest, fullest)

        def read_mask(wanted: slice | np.ndarray) -> np.ndarray:
            return np.arange(features)[None, :] < counts[wanted][:, None]

        fields: tuple[StoredRows, ...] = (
            *(self._plain_rows(name, features) for name in LocalFeatures._fields[:3]),
            self._descriptor_rows(features, packed),
            StoredRows(read_mask, (len(self), features), bool),
        )
        if sum(field.nbytes for field in fields) <= self._memory_bytes:
            return LocalFeatures(*(field.in_memory(self._block_bytes) for field in fields))
        return LocalFeatures(*fields)  # type: ignore[arg-type]  # rows act as arrays

    def read_pca(self) -> Pca | None:
        """The PCA projection of the descriptors, or None; a UserError if it is damaged."""
        return pca.load(self.folder / _PCA)

    def projection_names(self) -> list[str]:
        """Names of the images of this store that the projection was fitted on, if any."""
        return pca.fitted_on(self.folder / _PCA)

    def append(self, names: Sequence[str]) -> None:
        """Appends images; `missing` lists them until they are written."""
        if not names:
            return
        self._update(finished=False)  # first, so that an interrupted call is noticed
        start = self.index["images"]
        stop = start + len(names)
        width = max(self.index["name_bytes"], *(_name_bytes(name) for name in names))
        first, texts = start, list(names)
        if width != self.index["name_bytes"]:  # a longer name moves all names to a wider array
            first, texts = 0, [*self.row_names(), *names]
        name = f"names_{width}"
        if self._has(name):
            array = self._array(name)
            array.resize(stop)
        else:
            array = ChunkedArray.create(
                self.folder / name, (stop, width), "uint8", _NAME_CHUNK, self.layout.compression
            )
        array.write(slice(first, stop), pack_texts(texts, width))
        for name in ("global", "origins", *EVERY_IMAGE, *LOCAL_ARRAYS):
            if self._has(name):
                self._array(name).resize(stop)
        self._update(images=stop, name_bytes=width, finished=False)

    def delete(self, names: Sequence[str]) -> None:
        """Marks images as deleted; the chunks with their features stay as they are.

        Args:
          names: of images in the store; every image with such a name is deleted.

        Raises:
          UserError: if the store has no image of a name.
        """
        if not names:
            return
        known, wanted = set(self.names), set(names)
        unknown = [name for name in names if name not in known]
        if unknown:
            raise UserError("feature store", str(self.folder), f"has no image {unknown[0]}")
        self._delete_images([name in wanted for name in self.names])

    def forget_repeated(self) -> None:
        """Marks all but the last image of each name as deleted, in a store of distinct names.

        An image that was deleted and came back has two rows. If the state of the earlier one is
        lost, as by `discard`, it would be an image once more.
        """
        last = {name: number for number, name in enumerate(self.names)}
        earlier = [last[name] != number for number, name in enumerate(self.names)]
        if any(earlier):
            self._delete_images(earlier)

    def _delete_images(self, chosen: Sequence[bool]) -> None:
        gone = np.flatnonzero(chosen)
        gone = gone if self._kept_rows is None else self._kept_rows[gone]
        self._update(deleted=True)  # first, so that an interrupted deletion is noticed
        self._set_states(gone, self._states[gone] | DELETED)
        if self.is_whole():
            self._update(digest=self._digest_now())

    def write(
        self,
        run: range,
        values: Sequence[Row],
        sizes: np.ndarray | None = None,
        origins: np.ndarray | None = None,
    ) -> None:
        """Writes one run of `missing`; several processes may write different chunks.

        Args:
          run: rows to write.
          values: for each row, the features of its image or the reason it was skipped.
          sizes: int [n, 2], height and width in pixels that locations refer to; None if unknown.
          origins: the images that features were extracted from, `ORIGIN` [n]; None if unknown.

        Raises:
          UserError: if features are not finite or cannot be encoded or written.
        """
        require_finite(values, run, self.row_names)
        arrays, states = pack_rows(values, sizes, self.layout)
        place = slice(run.start, run.stop)
        if origins is not None:
            arrays["origins"] = pack_origins(origins)
        arrays |= self._zeros_where_absent(run, arrays)
        writing = []
        for name, content in arrays.items():
            array = self._array_like(name, content)
            writing.append((array, array.start_writing(place, content)))
        for array, future in writing:
            array.finish_writing(future)
        # The state is written last: it says that the other arrays are complete
        self._array_like("state", states).write(place, states)

    def mark_missing(self, rows: np.ndarray) -> None:
        """Marks rows int [n], ascending, as missing, so that they are extracted again."""
        self._update(finished=False)
        self._set_states(rows, self._states[rows] & DELETED)

    def discard(self, name: str, run: range) -> None:
        """Deletes a chunk and marks its rows as missing, so that they are extracted again.

        Args:
          name: of the array. A discarded chunk of states makes deleted images missing too.
          run: rows of the chunk.
        """
        if name != "state":
            self.mark_missing(np.arange(run.start, run.stop))
        self._update(finished=False)
        array = ChunkedArray(self.folder / name)
        array.chunk_path(run.start // array.chunk_rows).unlink(missing_ok=True)
        self.reload()

    def record_origins(self, rows: np.ndarray, origins: np.ndarray) -> None:
        """Writes the origins, `ORIGIN` [n], of rows int [n], ascending."""
        if not len(rows):
            return
        every_row = self.origins()
        every_row[rows] = origins
        if not self._has("origins"):
            rows = np.arange(len(every_row))  # a whole store has every chunk
        self._write_chunks_of("origins", pack_origins(every_row), rows)

    def write_pca(self, projection: Pca, fitted_on: Sequence[str] = ()) -> None:
        """Stores the PCA projection of this store's descriptors.

        Args:
          projection: of local descriptors.
          fitted_on: names of the images of this store that it was fitted on, if any.
        """
        pca.save(projection, self.folder / _PCA, fitted_on)

    def finish(self) -> None:
        """Marks the store as whole and removes what interrupted writers left.

        Raises:
          UserError: if a row is missing.
        """
        missing = self.missing()
        if missing:
            rule = f"lacks {sum(map(len, missing))} images; delg extract resumes it"
            raise UserError("feature store", str(self.folder), rule)
        if self.is_whole():
            return
        self._cut_to_images()
        self._write_missing_chunks_as_zeros()
        for left in (*self.folder.glob(".*"), *self.folder.glob("*/*.__lock")):
            with contextlib.suppress(OSError):  # NFS keeps what another program has open
                left.unlink()  # from writers that were killed
        for array in self.folder.glob("names_*"):
            if array != self._names_folder():
                shutil.rmtree(array)
        self._update(finished=True, digest=self._digest_now())

    def reload(self) -> None:
        """Reads the index again and drops cached arrays."""
        self.index = read_index(self.folder)
        self._arrays: dict[str, ChunkedArray] = {}
        for name in ("names", "_kept_rows", "_states"):
            self.__dict__.pop(name, None)

    @property
    def _block_bytes(self) -> float:
        return self._memory_bytes / _BLOCK_SHARE

    def _to_rows(self, wanted: slice | np.ndarray) -> slice | np.ndarray:
        """Rows of images given by number."""
        return wanted if self._kept_rows is None else self._kept_rows[wanted]

    @functools.cached_property
    def _kept_rows(self) -> np.ndarray | None:
        """Rows of images that are not deleted; None if all are kept."""
        if not self.index["deleted"]:
            return None
        return np.flatnonzero((self._states & DELETED) == 0)

    @functools.cached_property
    def _states(self) -> np.ndarray:
        """Flags of every row, uint8."""
        if not self._has("state"):
            return np.zeros(self.index["images"], np.uint8)
        return self._array("state").read(slice(0, self.index["images"]), fill=True)

    def _plain_rows(self, name: str, features: int) -> StoredRows:
        array = self._array(name)

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            return array.read(self._to_rows(wanted), columns=features)

        return StoredRows(read, (len(self), features, *array.shape[2:]), array.dtype)

    def _descriptor_rows(self, features: int, packed: bool) -> StoredRows:
        encoding = self.layout.local_encoding
        values = self._array("descriptors")
        if values.dtype != encodings.STORED[encoding]:
            path, rule = str(values.folder), f"holds {values.dtype}, and no {encoding} encoding"
            raise UserError("feature store", path, rule)
        scales = self._array("descriptor_scales") if encoding == "int8" else None

        def read(wanted: slice | np.ndarray) -> np.ndarray:
            rows = self._to_rows(wanted)
            codes = values.read(rows, columns=features)
            if packed:
                return codes
            steps = None if scales is None else scales.read(rows, columns=features)
            return encodings.decode(Codes(codes, steps), encoding)

        width = values.shape[2]
        if packed or encoding.startswith("float"):
            return StoredRows(read, (len(self), features, width), values.dtype)
        dim = 8 * width if encoding == "sign" else width
        return StoredRows(read, (len(self), features, dim), np.float16)

    @property
    def _memory_bytes(self) -> float:
        return self.memory_megabytes * 2**20

    def _names_folder(self) -> pathlib.Path:
        return self.folder / f"names_{self.index['name_bytes']}"

    def _has(self, name: str) -> bool:
        return name in self._arrays or (self.folder / name / "zarr.json").is_file()

    def _array(self, name: str) -> ChunkedArray:
        if name not in self._arrays:
            self._arrays[name] = ChunkedArray(self.folder / name, self.context)
        return self._arrays[name]

    def _array_like(self, name: str, content: np.ndarray) -> ChunkedArray:
        """An array of the store; created for rows shaped like `content` [n, ...] if absent."""
        if not self._has(name):
            shape = (self.index["images"], *content.shape[1:])
            chunk, level = self.layout.chunk_images, self.layout.compression
            part = _PART_BYTES if name in FEATURE_ARRAYS else 0
            self._arrays[name] = ChunkedArray.create(
                self.folder / name, shape, content.dtype, chunk, level, self.context, part
            )
        array = self._array(name)
        if array.shape[1:] != content.shape[1:]:
            rule = f"has {name} of shape {array.shape[1:]}, but a new image has {content.shape[1:]}"
            raise UserError("feature store", str(self.folder), rule)
        return array

    def _expected_arrays(self) -> set[str]:
        """Names of the arrays that the store must have."""
        if not self.index["images"]:
            return set()
        names = {self._names_folder().name, *EVERY_IMAGE}
        try:
            flags = np.bitwise_or.reduce(self._states)
        except UserError:  # damaged; reading from `arrays` reports where
            return names
        if flags & GLOBAL:
            names.add("global")
        if flags & LOCAL:
            names.update(LOCAL_ARRAYS)
            if self.layout.local_encoding != "int8":
                names.discard("descriptor_scales")
        return names

    def _digest_now(self) -> str:
        """Computes the digest from the files."""
        names = sorted(self._expected_arrays())
        return index.digest((name, ChunkedArray(self.folder / name)) for name in names)

    def _zeros_where_absent(
        self, run: range, arrays: dict[str, np.ndarray]
    ) -> dict[str, np.ndarray]:
        """Zeros for arrays whose old rows would stay, because the new rows have no values."""
        absent = {}
        for name in ("global", "origins", *LOCAL_ARRAYS):
            if name in arrays or not self._has(name):
                continue
            array = self._array(name)
            if array.chunk_path(run.start // array.chunk_rows).is_file():
                absent[name] = np.zeros((len(run), *array.shape[1:]), array.dtype)
        return absent

    def _set_states(self, rows: np.ndarray, states: np.ndarray) -> None:
        """Writes the flags of rows int [n], ascending."""
        every_row = self._states.copy()
        every_row[rows] = states
        self._write_chunks_of("state", every_row, rows)
        self.reload()

    def _write_chunks_of(self, name: str, every_row: np.ndarray, rows: np.ndarray) -> None:
        """Writes the chunks of an array that hold some of `rows`, from the values of every row."""
        array, size = self._array_like(name, every_row), self.layout.chunk_images
        for chunk in np.unique(rows // size):
            place = slice(int(chunk) * size, min((int(chunk) + 1) * size, len(every_row)))
            array.write(place, every_row[place])

    def _cut_to_images(self) -> None:
        """Removes the rows that an interrupted `append` left behind those of the images."""
        names = (self._names_folder().name, "global", "origins", *EVERY_IMAGE, *LOCAL_ARRAYS)
        for name in filter(self._has, names):
            if self._array(name).shape[0] > self.index["images"]:
                self._array(name).resize(self.index["images"])

    def _write_missing_chunks_as_zeros(self) -> None:
        """Writes zeros for images without features where nothing was written."""
        size, images = self.layout.chunk_images, self.index["images"]
        flags = {"global": GLOBAL, "origins": 0, **dict.fromkeys(LOCAL_ARRAYS, LOCAL)}
        for name, flag in flags.items():
            if not self._has(name):
                continue
            array = self._array(name)
            for number, start in enumerate(range(0, images, size)):
                stop = min(start + size, images)
                flagged = (self._states[start:stop] & flag) != 0
                if flagged.all():
                    continue
                rows = np.arange(start, stop)
                if array.chunk_path(number).is_file():
                    rows = array.absent_rows(number)
                    rows = rows[~flagged[rows - start]]
                elif flagged.any():
                    continue  # reading it is an error
                for run in np.split(rows, np.flatnonzero(np.diff(rows) != 1) + 1):
                    if len(run):
                        zeros = np.zeros((len(run), *array.shape[1:]), array.dtype)
                        array.write(slice(int(run[0]), int(run[-1]) + 1), zeros)

    def _update(self, **values: int | bool | str) -> None:
        """Writes the index; the digest is dropped unless it is given."""
        content = {**self.index, "digest": "", **values}
        write_index(self.folder, content, self.layout)
        self.reload()


def _name_bytes(name: str) -> int:
    """Bytes that a name is padded to."""
    return -(-max(len(name.encode()), 1) // _NAME_BYTES) * _NAME_BYTES
