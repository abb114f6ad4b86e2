"""Import of features from files of another system, instead of computing them."""

import contextlib
import hashlib
import pathlib
from collections.abc import Iterator, Mapping, Sequence

import ml_collections
import numpy as np

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.formats import ames, hloc
from delg_jax.features.formats.delf import GLOBAL_SUFFIX, LOCAL_SUFFIX, DelfFolder
from delg_jax.features.formats.image_order import AbsentImageError
from delg_jax.features.local_features import LocalFeatures, strongest
from delg_jax.features.storage.rows import Layout
from delg_jax.features.store import FeatureStore
from delg_jax.features.store_writing import missing_rows
from delg_jax.file_stamps import stamp

# Fields of config.extract that imported features depend on, besides the digest of the files
DECIDING_FIELDS = (
    "max_features",
    "local_encoding",
    "global_dtype",
    "chunk_images",
    "compression",
)

_Reader = hloc.HlocReader | ames.AmesReader | DelfFolder
_PICKLES = (".pkl", ".pickle", ".pt", ".pth")
_OF_PICKLES = (
    "may be a pickle, which could run any program; name the HDF5 files of features that it was "
    "made of, such as DESCRIPTOR_gallery_global.hdf5 (see docs/export.md)"
)
_SUFFIX = {"local": LOCAL_SUFFIX, "global": GLOBAL_SUFFIX}


def is_imported(settings: ml_collections.ConfigDict) -> bool:
    """Whether the `config.extract` tree imports features."""
    return bool(settings.imported_local or settings.imported_global)


class ImportedFeatures:
    """Files of features, `config.extract.imported_local` and `imported_global`.

    Each is an HDF5 file of hloc, or of AMES, ELViS and ILIAS; or a folder of such as the latter, or
    of the official code's files. The subfolders `database` and `queries` of a folder, if any, are
    read for the store of that name.

    Args:
      local: file or folder of local features; "" for none.
      pooled: file or folder of global descriptors; "" for none.
      layout: of the stores.
      names: of the images, by store, in the order in which the stores are written.

    Raises:
      UserError: if a file or folder does not exist.
    """

    def __init__(
        self, local: str, pooled: str, layout: Layout, names: Mapping[str, Sequence[str]]
    ) -> None:
        paths = {"local": local, "global": pooled}
        self._paths = {kind: pathlib.Path(path) for kind, path in paths.items() if path}
        self._layout, self._names = layout, names
        self._dimensions: dict[str, int] = {}
        for kind, path in self._paths.items():
            if path.suffix in _PICKLES and path.is_file():
                raise UserError(f"config.extract.imported_{kind}", str(path), _OF_PICKLES)
            if not path.is_dir() and not (path.is_file() and path.suffix in ames.SUFFIXES):
                endings = " or ".join(ames.SUFFIXES)
                rule = f"must be an existing {endings} file, or a folder of {_SUFFIX[kind]} or "
                rule += f"{endings} files"
                raise UserError(f"config.extract.imported_{kind}", str(path), rule)

    def digest(self) -> str:
        """SHA-256 of the bytes of HDF5 files, and of names, sizes and times in folders."""
        total = hashlib.sha256()
        for kind, path in self._paths.items():
            total.update(kind.encode())
            if path.is_file():
                lists = [text for text in ames.lists(path) if text.is_file()]
                for member in (path, *(lists if lists and ames.is_array_file(path) else [])):
                    with member.open("rb") as file:
                        total.update(hashlib.file_digest(file, "sha256").digest())
                continue
            official = _has(path, _SUFFIX[kind])
            for ending in (_SUFFIX[kind],) if official else (*ames.SUFFIXES, ".txt"):
                for member in sorted(path.rglob(f"*{ending}")):
                    size, time, _ = stamp(member)
                    name = member.relative_to(path).as_posix()
                    total.update(f"{name}\0{size} {time}\0".encode())
        return total.hexdigest()

    def import_to_store(self, name: str, store: FeatureStore, max_skipped: int) -> None:
        """Imports the images whose rows are missing in a store.

        Descriptors are normalised to unit length, except zeros. The strongest
        `config.extract.max_features` local features of each image are kept.

        Args:
          name: of the store, a key of `names`.
          store: open for writing; whole afterwards.
          max_skipped: maximum number of images that the files may lack.

        Raises:
          UserError: if a file is damaged, descriptors differ in length, or too many images are
            missing.
        """
        names = store.row_names()
        with missing_rows(store, f"import {store.folder.name}", max_skipped) as (runs, advance):
            if runs:
                self._read_dimensions()
            with self._open(name) as readers:
                for run in runs:
                    store.write(run, [self._read(readers, names[row]) for row in run])
                    advance(len(run))

    def _read_dimensions(self) -> None:
        """Reads images, from the first one, until the dimensions of descriptors are known.

        An image without local features has none, and a resumed import must find those of the
        images before.
        """
        for store, names in self._names.items():
            with self._open(store) as readers:
                for name in names:
                    if self._dimensions.keys() == self._paths.keys():
                        return
                    self._read(readers, name)

    @contextlib.contextmanager
    def _open(self, store: str) -> Iterator[dict[str, _Reader]]:
        with contextlib.ExitStack() as stack:
            readers: dict[str, _Reader] = {}
            for kind, path in self._paths.items():
                own = path / store if (path / store).is_dir() else path
                if path.is_file() and not ames.is_array_file(path):
                    readers[kind] = stack.enter_context(hloc.reading(path, store))
                elif path.is_dir() and _has(path, _SUFFIX[kind]):
                    readers[kind] = DelfFolder(own)
                else:
                    arrays = ames.files(own, store)
                    readers[kind] = stack.enter_context(ames.reading(arrays, kind))
            yield readers

    def _read(self, readers: dict[str, _Reader], name: str) -> Features | str:
        """Features of one image, or the reason why there are none."""
        descriptor, local = np.zeros(0, np.float32), None
        try:
            if "global" in readers:
                found = readers["global"].read_global(name)
                self._check_dimension("global", name, len(found))
                descriptor = _unit(found, np.float32)
            if "local" in readers:
                local = self._prepare(readers["local"].read_local(name), name)
        except AbsentImageError as error:
            return error.rule
        return Features(descriptor, local)

    def _prepare(self, features: LocalFeatures, name: str) -> LocalFeatures:
        kept = strongest(features, self._layout.max_features)
        if not len(kept.mask):
            width = self._dimensions.get("local", 0)
            return kept._replace(descriptors=np.zeros((0, width), np.float32))
        self._check_dimension("local", name, kept.descriptors.shape[1])
        encoding = self._layout.local_encoding
        dtype = np.dtype(encoding if encoding.startswith("float") else np.float32)
        return kept._replace(descriptors=_unit(np.asarray(kept.descriptors), dtype))

    def _check_dimension(self, kind: str, name: str, found: int) -> None:
        if not found:
            rule = f"holds an empty descriptor for {name}"
            raise UserError(f"config.extract.imported_{kind}", str(self._paths[kind]), rule)
        expected = self._dimensions.setdefault(kind, found)
        if found != expected:
            rule = f"holds descriptors of length {found} for {name}, but earlier ones of {expected}"
            raise UserError(f"config.extract.imported_{kind}", str(self._paths[kind]), rule)


def _has(folder: pathlib.Path, suffix: str) -> bool:
    """Whether a folder holds a file of a suffix, at any depth."""
    return any(True for _ in folder.rglob(f"*{suffix}"))


def _unit(vectors: np.ndarray, dtype: np.dtype | type) -> np.ndarray:
    """Divides [..., D] by the L2 norm, except zeros and vectors of unit length within `dtype`.

    Features that were exported from a store are thereby imported bit for bit.
    """
    norms = np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True)
    keep = (norms == 0) | (np.abs(norms - 1) <= 2 * np.finfo(dtype).eps)
    return (vectors / np.where(keep, 1.0, norms)).astype(np.float32)
