"""One row per image: flags and layout of a store, packing into arrays, rows read from disk."""

import math
from collections.abc import Callable, Sequence
from typing import NamedTuple, Self

import ml_collections
import numpy as np
import numpy.typing as npt

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage import encodings
from delg_jax.file_stamps import DIGEST_BYTES

# Flags of a row
WRITTEN, SKIPPED, GLOBAL, LOCAL, DELETED = 1, 2, 4, 8, 16

EVERY_IMAGE = ("state", "reasons", "sizes")  # arrays with a row for every image, also skipped ones
# Arrays [N, K, ...] of local features, of which a few images or few features can be read
FEATURE_ARRAYS = ("locations", "scales", "scores", "descriptors", "descriptor_scales")
LOCAL_ARRAYS = ("counts", *FEATURE_ARRAYS)

# The image that a row was extracted from; zeros if unknown
ORIGIN = np.dtype(
    [
        ("known", "u1"),
        ("stamp", "<i8", 3),  # of the image, see `ImageSource.stamps`
        ("content", "u1", DIGEST_BYTES),  # digest of the file; zeros if unknown
        ("box", "<f8", 4),  # that the image was cropped to; NaN if it was not cropped
    ]
)

REASON_BYTES = 200  # maximum length of the reason why an image was skipped

Row = Features | str  # features of an image, or why it was skipped


class Layout(NamedTuple):
    """Settings that the bytes of a store depend on, apart from the features.

    Attributes:
      chunk_images: images in a chunk.
      local_encoding: of the local descriptors, one of `encodings.ENCODINGS`.
      global_dtype: one of `encodings.GLOBAL_DTYPES`.
      max_features: K, maximum number of features per image.
      compression: level of Zstandard; 0 for none.
    """

    chunk_images: int = 64
    local_encoding: str = "float32"
    global_dtype: str = "float32"
    max_features: int = 1000
    compression: int = 1

    @classmethod
    def of(cls, extract: ml_collections.ConfigDict) -> Self:
        """The layout that `config.extract` asks for."""
        return cls(**{name: extract[name] for name in cls._fields})


def require_finite(rows: Sequence[Row], numbers: range, names: Callable[[], list[str]]) -> None:
    """Raises a UserError that names the first image with features that are not finite.

    Args:
      rows: features of images, or why they were skipped.
      numbers: of the rows in the store.
      names: returns the names of all rows; called only for the error.
    """
    for row, number in zip(rows, numbers, strict=True):
        if isinstance(row, Features):
            arrays = {"global descriptor": row.global_descriptor}
            if row.local is not None:
                arrays |= row.local._asdict()
            for name, array in arrays.items():
                if not np.isfinite(array).all():
                    rule = f"must be finite numbers; its {name} has others"
                    raise UserError("features", names()[number], rule)


def pack_rows(
    rows: Sequence[Row], sizes: np.ndarray | None, layout: Layout
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """Packs rows into the arrays of a store.

    Args:
      rows: of each image, in order; a global descriptor of length 0, or `local` None, stands for
        missing features.
      sizes: int [n, 2], height and width of the images in pixels; None if unknown.
      layout: of the store.

    Returns:
      Arrays [n, ...] by name, those of features only if a row has them; and flags uint8 [n].
    """
    count = len(rows)
    reasons = [row if isinstance(row, str) else "" for row in rows]
    arrays = {
        "reasons": pack_texts(reasons, REASON_BYTES),
        "sizes": np.zeros((count, 2), np.int32) if sizes is None else sizes.astype(np.int32),
    }
    states = np.full(count, WRITTEN, np.uint8)
    states[[isinstance(row, str) for row in rows]] |= SKIPPED
    good = {number: row for number, row in enumerate(rows) if isinstance(row, Features)}
    pooled = {n: row.global_descriptor for n, row in good.items() if row.global_descriptor.size}
    if pooled:
        width = len(next(iter(pooled.values())))
        arrays["global"] = np.zeros((count, width), layout.global_dtype)
        for number, descriptor in pooled.items():
            arrays["global"][number] = descriptor
            if descriptor.any():  # a descriptor of zeros, as in imported files, matches nothing
                states[number] |= GLOBAL
    local = {number: row.local for number, row in good.items() if row.local is not None}
    if local:
        arrays.update(_pack_local(local, count, layout))
        states[list(local)] |= LOCAL
    return arrays, states


def _pack_local(
    local: dict[int, LocalFeatures], count: int, layout: Layout
) -> dict[str, np.ndarray]:
    """Arrays [n, K, ...] of local features by row, and the number of features in each."""
    width = next(iter(local.values())).descriptors.shape[-1]
    shapes = {"locations": (2,), "scales": (), "scores": (), "descriptors": (width,)}
    padded = {
        name: np.zeros((count, layout.max_features, *shape), np.float32)
        for name, shape in shapes.items()
    }
    counts = np.zeros(count, np.int32)
    for number, features in local.items():
        counts[number] = min(int(features.mask.sum()), layout.max_features)
        for name, array in padded.items():
            kept = getattr(features, name)[features.mask][: layout.max_features]
            array[number, : len(kept)] = kept
    codes = encodings.encode(padded.pop("descriptors"), layout.local_encoding)
    arrays = {**padded, "counts": counts, "descriptors": codes.values}
    return arrays if codes.scales is None else {**arrays, "descriptor_scales": codes.scales}


def pack_texts(texts: Sequence[str], width: int) -> np.ndarray:
    """Packs texts into uint8 [n, width]: UTF-8, cut between characters, padded with zeros."""
    cut = [text.encode()[:width].decode(errors="ignore").encode() for text in texts]
    return np.array(cut, f"S{width}").view(np.uint8).reshape(len(texts), width)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """The texts in uint8 [n, width]."""
    if not packed.size:
        return [""] * len(packed)
    texts = np.ascontiguousarray(packed).view(f"S{packed.shape[1]}").ravel()
    return [text.decode(errors="replace") for text in texts.tolist()]


def pack_origins(origins: np.ndarray) -> np.ndarray:
    """Packs records `ORIGIN` [n] into uint8 [n, bytes], which a chunked array can hold."""
    packed = np.ascontiguousarray(origins, ORIGIN).view(np.uint8)
    return packed.reshape(len(origins), ORIGIN.itemsize)


class StoredRows:
    """An array [N, ...] that reads rows when they are indexed.

    Args:
      read: returns the rows [n, ...] for a slice without step, or for indices int [n].
      shape: of the array.
      dtype: of what `read` returns.

    Attributes:
      shape: of the array.
      dtype: of the rows.
    """

    def __init__(
        self,
        read: Callable[[slice | np.ndarray], np.ndarray],
        shape: tuple[int, ...],
        dtype: npt.DTypeLike,
    ) -> None:
        self._read = read
        self.shape = shape
        self.dtype = np.dtype(dtype)

    def __len__(self) -> int:
        """Number of rows."""
        return self.shape[0]

    @property
    def ndim(self) -> int:
        """Number of axes."""
        return len(self.shape)

    @property
    def row_bytes(self) -> int:
        """Bytes of one row in memory."""
        return math.prod(self.shape[1:]) * self.dtype.itemsize

    @property
    def nbytes(self) -> int:
        """Bytes of all rows in memory."""
        return len(self) * self.row_bytes

    def __getitem__(self, key: int | slice | np.ndarray) -> np.ndarray:
        """One row, a slice of rows, or the rows of an index array of any shape."""
        if isinstance(key, slice):
            start, stop, step = key.indices(len(self))
            if step == 1:
                return self._read(slice(start, max(start, stop)))
            key = np.arange(start, stop, step)
        indices = np.asarray(key)
        if indices.dtype == bool:
            indices = np.flatnonzero(indices)
        flat = np.where(indices < 0, indices + len(self), indices).ravel()
        return self._read(flat).reshape(*indices.shape, *self.shape[1:])

    def __array__(self, dtype: np.dtype | None = None, copy: bool | None = None) -> np.ndarray:
        """Reads all rows."""
        if copy is False:
            raise ValueError(f"`copy` (={copy}) must not be False: the rows are on disk")
        return self._read(slice(0, len(self))).astype(dtype or self.dtype, copy=False)

    def in_memory(self, block_bytes: float) -> np.ndarray:
        """Reads all rows in blocks, which bounds the memory for decoding."""
        whole = np.empty(self.shape, self.dtype)
        step = max(1, int(block_bytes // max(self.row_bytes, 1)))
        for start in range(0, len(self), step):
            whole[start : start + step] = self[start : start + step]
        return whole
