"""The HDF5 files of AMES, ELViS and ILIAS: one array `features`, with a row for each image.

Local features are [N, K, 5 + D]: x, y, scale, mask (1 = padding), weight, and a descriptor. In the
binary variant of ELViS, each row is a record of `metadata` [K, 5] and `descriptor` [K, D / 8], one
bit for each dimension. Global descriptors are [N, D]. The names of the rows are in the array
`index`, as ILIAS has them, or in a text file beside, as AMES and ELViS have them.
"""

import contextlib
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from delg_jax import hdf5_files, text_files, workdir
from delg_jax.errors import UserError
from delg_jax.features.formats.image_order import AbsentImageError, ImagePaths, best_first
from delg_jax.features.local_features import LocalFeatures

SUFFIXES = (".h5", ".hdf5")
# Words of file names, and of their lists of images, by store
PARTS = {"database": "gallery", "queries": "query"}

_FEATURES, _INDEX = "features", "index"
_METADATA, _DESCRIPTOR = "metadata", "descriptor"
_X, _Y, _SCALE, _MASK, _WEIGHT, _COLUMNS = range(6)
_PROBED = 64  # rows that tell whether scales are numbers of pyramid levels


class Image(NamedTuple):
    """A row of the files to write; `local` is None for an image without features.

    `size` is its height and width in pixels, 0 if unknown.
    """

    name: str
    descriptor: np.ndarray | None
    local: LocalFeatures | None
    size: Sequence[int]


def is_array_file(path: str | pathlib.Path) -> bool:
    """Whether an HDF5 file has one array of all images, and not a group for each."""
    with hdf5_files.opened(path) as file, hdf5_files.naming(path, "its features"):
        member = hdf5_files.member(file, _FEATURES)
        return member is not None and not hasattr(member, "keys")


def files(path: pathlib.Path, store: str) -> list[pathlib.Path]:
    """The files that belong to a store.

    Args:
      path: of a file, or of a folder; of its files, those with `query` in their names belong to
        the queries, those with `gallery` to the database, and others to both.
      store: `database` or `queries`; another one has all files.

    Returns:
      Paths, sorted; empty for a folder without HDF5 files.
    """
    if not path.is_dir():
        return [path]
    others = [word for part, word in PARTS.items() if part != store and store in PARTS]
    found = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    return [file for file in found if not any(word in file.stem for word in others)]


def lists(path: pathlib.Path) -> list[pathlib.Path]:
    """The text files that may name the rows of a file, the best first."""
    words = [word for word in PARTS.values() if word in path.stem]
    own = [path.with_suffix(".txt")]
    return own + [path.with_name(f"{start}{word}.txt") for word in words for start in ("test_", "")]


@contextlib.contextmanager
def reading(paths: Sequence[pathlib.Path], kind: str) -> Iterator["AmesReader"]:
    """Opens files to read.

    Args:
      paths: of files; those with features of the other kind are left out.
      kind: `local` or `global`.

    Yields:
      The reader.

    Raises:
      UserError: if a file is damaged, or the names of its rows are unknown.
    """
    with contextlib.ExitStack() as stack:
        found = [_Rows.open(path, stack.enter_context(hdf5_files.opened(path))) for path in paths]
        yield AmesReader([rows for rows in found if rows.kind == kind])


class AmesReader:
    """Features by the names of images, which are matched as `ImagePaths` does.

    Args:
      files: with features of one kind.
    """

    def __init__(self, files: Sequence["_Rows"]) -> None:
        self._files = files
        self._places: dict[str, list[tuple[_Rows, int]]] = {}
        for rows in files:
            for number, name in enumerate(rows.names):
                self._places.setdefault(name, []).append((rows, number))
        self._paths = ImagePaths(self._places)

    def read_local(self, name: str) -> LocalFeatures:
        """Reads the local features of one image.

        Args:
          name: of the image.

        Returns:
          LocalFeatures [K], best first; descriptors float32, not normalised, those of one bit +-1.
          Locations are in pixels: shares of the image are multiplied by its size. Scales are 1
          where the file has the numbers of pyramid levels instead.

        Raises:
          AbsentImageError: if the files lack the image.
          UserError: if its data is damaged, or its locations are shares and its size is unknown.
        """
        rows, number = self._find(name)
        with hdf5_files.naming(rows.path, f"image {name}"):
            return best_first(rows.local(number))

    def read_global(self, name: str) -> np.ndarray:
        """Reads the global descriptor of one image, float32 [D]; not normalised."""
        rows, number = self._find(name)
        with hdf5_files.naming(rows.path, f"image {name}"):
            return hdf5_files.finite(rows.read(number), _FEATURES)

    def _find(self, name: str) -> tuple["_Rows", int]:
        found = [place for path in self._paths.find(name) for place in self._places[path]]
        if len(found) == 1:
            return found[0]
        among = ", ".join(str(rows.path) for rows in self._files) or "a file of such features"
        if not found:
            raise AbsentImageError("image", name, f"is not in {among}")
        places = " and ".join(f"row {number} of {rows.path}" for rows, number in found[:2])
        raise UserError("image", name, f"may be {places}; each image must have one row")


class _Rows:
    """The rows of one file.

    Args:
      path: of the file, for messages.
      dataset: `features` of the open file.
      names: of the rows.
      sizes: width and height of each image in pixels; none if they are unknown.
    """

    def __init__(
        self, path: pathlib.Path, dataset: Any, names: list[str], sizes: list[tuple[int, int]]
    ) -> None:
        self.path, self.names = path, names
        self._dataset, self._sizes = dataset, sizes
        self._bits = dataset.dtype.names is not None
        self.kind = "local" if self._bits or dataset.ndim == 3 else "global"
        if self.kind == "local" and not self._bits and dataset.shape[2] <= _COLUMNS:
            raise ValueError(f"{_FEATURES} has the shape {dataset.shape}, not [N, K, 5 + D]")
        self._numbered = self.kind == "local" and self._has_numbers_of_levels()

    @classmethod
    def open(cls, path: pathlib.Path, file: Any) -> Self:
        """The rows of an open file; a UserError if it is of another layout."""
        with hdf5_files.naming(path, "its features"):
            dataset = hdf5_files.member(file, _FEATURES)
            hdf5_files.check(dataset, _FEATURES, fields=True)
            fields = dataset.dtype.names
            if dataset.ndim not in ((1, 2) if fields else (2, 3)):
                raise ValueError(f"{_FEATURES} has the shape {dataset.shape}")
            if fields and not {_METADATA, _DESCRIPTOR} <= set(fields):
                raise ValueError(f"its records are {fields}, not {_METADATA} and {_DESCRIPTOR}")
            if not fields and dataset.dtype.kind != "f":
                rule = f"{_FEATURES} is {dataset.dtype}, which tells no mask; bits must be records "
                raise ValueError(f"{rule}of {_METADATA} and {_DESCRIPTOR}")
            names, sizes = _row_names(path, file)
            if len(names) != len(dataset):
                raise ValueError(f"it has {len(dataset)} rows, and {len(names)} names of images")
            return cls(path, dataset, names, sizes)

    def read(self, number: int) -> np.ndarray:
        """One row as it is stored."""
        wanted = slice(number, number + 1)
        return hdf5_files.read(self._dataset, _FEATURES, wanted, fields=True)[0]

    def local(self, number: int) -> LocalFeatures:
        """The local features of one row, without padding; a ValueError if it is damaged."""
        metadata, descriptors = self._parts(self.read(number))
        real = metadata[:, _MASK] == 0
        if not np.isin(metadata[:, _MASK], (0, 1)).all():
            raise ValueError("its mask must be 0, or 1 for padding")
        metadata, descriptors = metadata[real], descriptors[real]
        locations = metadata[:, [_Y, _X]]
        # Shares of the image; no network has all its features within a pixel
        if len(locations) > 1 and ((locations >= 0) & (locations <= 1)).all():
            if not self._sizes:
                rule = "its positions are shares of the image, whose size is unknown; write "
                raise ValueError(f"{rule}PATH,WIDTH,HEIGHT for each row into {lists(self.path)[0]}")
            locations = locations * np.array(self._sizes[number][::-1], np.float32)
        scales = metadata[:, _SCALE]
        if self._numbered or (scales <= 0).any():
            scales = np.ones_like(scales)
        return LocalFeatures(
            locations, scales, metadata[:, _WEIGHT], descriptors, np.ones(len(metadata), bool)
        )

    def _parts(self, row: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Metadata [K, 5] and descriptors [K, D] of a row, float32."""
        if not self._bits:
            whole = hdf5_files.finite(row, _FEATURES)
            return whole[:, :_COLUMNS], whole[:, _COLUMNS:]
        metadata, codes = hdf5_files.finite(row[_METADATA], _METADATA), row[_DESCRIPTOR]
        if metadata.ndim != 2 or metadata.shape[1] != _COLUMNS:
            raise ValueError(f"{_METADATA} has the shape {metadata.shape}, not [K, 5]")
        if codes.dtype != np.uint8 or codes.ndim != 2 or len(codes) != len(metadata):
            raise ValueError(f"{_DESCRIPTOR} is {codes.dtype} {codes.shape}, not uint8 [K, D / 8]")
        return metadata, 2 * np.unpackbits(codes, axis=1).astype(np.float32) - 1

    def _has_numbers_of_levels(self) -> bool:
        """Whether scales are numbers from 0, as published files have; ours are above 0."""
        for number in range(min(len(self.names), _PROBED)):
            metadata, _ = self._parts(self.read(number))
            if (metadata[metadata[:, _MASK] == 0, _SCALE] <= 0).any():
                return True
        return False


def _row_names(path: pathlib.Path, file: Any) -> tuple[list[str], list[tuple[int, int]]]:
    """Names of the rows of a file, and widths and heights of the images if they are known."""
    found = next((text for text in lists(path) if text.is_file()), None)
    text = "" if found is None else text_files.read(found, "list of images")
    fields = [line.split(",") for _, line in text_files.lines(text)]
    sized = all(len(line) > 2 and "".join(line[-2:]).isdecimal() for line in fields)
    sizes = [(int(line[-2]), int(line[-1])) for line in fields] if sized else []
    index = hdf5_files.member(file, _INDEX)
    if index is not None:
        names = hdf5_files.read_texts(index, _INDEX)
        return names, sizes if len(sizes) == len(names) else []
    if found is None:
        rule = "the names of its rows are unknown; list the images, one a line, in "
        raise ValueError(f"{rule}{lists(path)[0]}")
    return [line[0] for line in fields], sizes


class ArrayWriter:
    """Writes the rows of one store, in the order of its images; all rows must be written.

    Args:
      folder: of the files.
      store: `database` or `queries`.
      images: N, their number.
      features: K, the most local features of an image.
      dimensions: of local and global descriptors; 0 for those that there are not.
      bits: whether local descriptors are written as signs.

    Raises:
      UserError: if the package h5py is not installed.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        store: str,
        images: int,
        features: int,
        dimensions: tuple[int, int],
        bits: bool,
    ) -> None:
        self._h5py = hdf5_files.package()
        self._folder, self._word, self._images = folder, PARTS[store], images
        self._features, self._bits = features, bits
        self._local, self._global = dimensions

    def write(self, images: Iterable[Image]) -> None:
        """Writes the files `delg_gallery_local.hdf5` and so on, and the list of the images."""
        lines = []
        with contextlib.ExitStack() as stack:
            local = self._create(stack, "local", self._local, self._local_layout())
            pooled = self._create(stack, "global", self._global, ((self._global,), np.float32))
            for number, image in enumerate(images):
                name = image.name.encode(errors="surrogateescape")
                if local is not None:
                    local[_INDEX][number] = name
                    local[_FEATURES][number] = self._row(image.local)
                if pooled is not None:
                    pooled[_INDEX][number] = name
                    if image.descriptor is not None:
                        pooled[_FEATURES][number] = image.descriptor
                height, width = image.size
                lines.append(f"{image.name},{width},{height}" if width else image.name)
        workdir.write_text(self._folder / f"test_{self._word}.txt", "\n".join([*lines, ""]))

    def _local_layout(self) -> tuple[tuple[int, ...], Any]:
        """Shape and type of a row."""
        if not self._bits:
            return (self._features, _COLUMNS + self._local), np.float32
        fields = [(_METADATA, np.float32, _COLUMNS), (_DESCRIPTOR, np.uint8, self._local // 8)]
        return (), np.dtype([(name, kind, (self._features, width)) for name, kind, width in fields])

    def _create(
        self, stack: contextlib.ExitStack, kind: str, dimension: int, layout: tuple[Any, Any]
    ) -> Any:
        if not dimension:
            return None
        path = self._folder / f"delg_{self._word}_{kind}.hdf5"
        file = stack.enter_context(self._h5py.File(path, "w"))
        shape, dtype = layout
        file.create_dataset(_FEATURES, (self._images, *shape), dtype)
        file.create_dataset(_INDEX, (self._images,), self._h5py.string_dtype())
        return file

    def _row(self, local: LocalFeatures | None) -> np.ndarray:
        """The row of an image; one without features is all padding."""
        metadata = np.zeros((self._features, _COLUMNS), np.float32)
        descriptors = np.zeros((self._features, self._local), np.float32)
        metadata[:, _MASK] = 1
        if local is not None:
            mask = np.asarray(local.mask)
            locations, scales, scores, vectors = (np.asarray(part)[mask] for part in local[:4])
            columns = [locations[:, 1], locations[:, 0], scales, np.zeros(len(scales)), scores]
            metadata[: len(scales)] = np.stack(columns, axis=1)
            descriptors[: len(scales)] = vectors
        if not self._bits:
            return np.concatenate([metadata, descriptors], axis=1)
        row = np.zeros((), self._local_layout()[1])
        row[_METADATA], row[_DESCRIPTOR] = metadata, np.packbits(descriptors > 0, axis=1)
        return row
