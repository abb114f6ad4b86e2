"""What a store says about each image, packed into arrays: names, states, reasons, sizes."""

from collections.abc import Callable, Sequence
from typing import NamedTuple

import numpy as np

from delg_jax.errors import UserError
from delg_jax.features.extractor import Features
from delg_jax.features.storage import encodings

# Flags of an image's state
WRITTEN, SKIPPED, GLOBAL, LOCAL, DELETED = 1, 2, 4, 8, 16

# Arrays by what images have rows in them
EVERY_IMAGE = ("state", "reasons", "sizes")  # a skipped one, too
LOCAL_ARRAYS = ("counts", "locations", "scales", "scores", "descriptors", "descriptor_scales")

CONTENT_BYTES = 16  # of what identifies the bytes of an image file
# What a row was made from: zeros where nobody knows
ORIGIN = np.dtype(
    [
        ("known", "u1"),
        ("stamp", "<i8", 3),  # of the image, see `ImageSource.stamps`
        ("content", "u1", CONTENT_BYTES),  # digest of its bytes; zeros if unknown
        ("box", "<f8", 4),  # that it was cropped to; not-a-number if it was not
    ]
)

REASON_BYTES = 200  # kept of why an image was skipped

Row = Features | str  # features of an image, or why it was skipped


class Layout(NamedTuple):
    """What decides the bytes of a store beside the features.

    Attributes:
      chunk_images: images in a chunk.
      local_encoding: of the local descriptors, one of `encodings.ENCODINGS`.
      global_dtype: one of `encodings.GLOBAL_DTYPES`.
      max_features: K, features per image at most.
      compression: level of Zstandard; 0 for none.
    """

    chunk_images: int = 64
    local_encoding: str = "float32"
    global_dtype: str = "float32"
    max_features: int = 1000
    compression: int = 1


def pack_texts(texts: Sequence[str], width: int) -> np.ndarray:
    """Texts as uint8 [n, width], UTF-8, zeros behind, cut to whole characters."""
    cut = [text.encode()[:width].decode(errors="ignore").encode() for text in texts]
    return np.array(cut, f"S{width}").view(np.uint8).reshape(len(texts), width)


def unpack_texts(packed: np.ndarray) -> list[str]:
    """The texts in uint8 [n, width]."""
    if not packed.size:
        return [""] * len(packed)
    texts = np.ascontiguousarray(packed).view(f"S{packed.shape[1]}").ravel()
    return [text.decode(errors="replace") for text in texts.tolist()]


def pack_origins(origins: np.ndarray) -> np.ndarray:
    """Records `ORIGIN` [n] as uint8 [n, bytes], which an array can hold."""
    packed = np.ascontiguousarray(origins, ORIGIN).view(np.uint8)
    return packed.reshape(len(origins), ORIGIN.itemsize)


def require_finite(rows: Sequence[Row], places: range, names: Callable[[], list[str]]) -> None:
    """Raises a UserError that names the first image with features that are no finite numbers.

    Args:
      rows: features of images, or why they were skipped.
      places: of the rows in the store.
      names: returns the names of all rows; only called for the error.
    """
    for row, place in zip(rows, places, strict=True):
        if isinstance(row, Features):
            arrays = {"global descriptor": row.global_descriptor}
            if row.local is not None:
                arrays |= row.local._asdict()
            for name, array in arrays.items():
                if not np.isfinite(array).all():
                    rule = f"must be finite numbers; its {name} has others"
                    raise UserError("features", names()[place], rule)


def columns(
    rows: Sequence[Row], sizes: np.ndarray | None, layout: Layout
) -> tuple[dict[str, np.ndarray], np.ndarray]:
    """The arrays that rows become.

    Args:
      rows: of each image, in order; a global descriptor of length 0, or `local` None, stands for
        features that the image has not.
      sizes: int [n, 2], rows and columns of pixels of the images; None where nobody knows.
      layout: of the store.

    Returns:
      By name, arrays [n, ...], those of descriptors only if a row has them; and states uint8 [n].
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
            states[number] |= GLOBAL
    local = {number: row.local for number, row in good.items() if row.local is not None}
    if local:
        arrays.update(_local_columns(local, count, layout))
        states[list(local)] |= LOCAL
    return arrays, states


def _local_columns(local: dict, count: int, layout: Layout) -> dict[str, np.ndarray]:
    """Arrays [n, K, ...] of local features by the number of their image, and how many there are."""
    most = layout.max_features
    width = next(iter(local.values())).descriptors.shape[-1]
    shapes = {"locations": (2,), "scales": (), "scores": (), "descriptors": (width,)}
    padded = {name: np.zeros((count, most, *shape), np.float32) for name, shape in shapes.items()}
    counts = np.zeros(count, np.int32)
    for number, features in local.items():
        counts[number] = min(int(features.mask.sum()), most)
        for name, array in padded.items():
            kept = getattr(features, name)[features.mask][:most]
            array[number, : len(kept)] = kept
    codes = encodings.encode(padded.pop("descriptors"), layout.local_encoding)
    found = {**padded, "counts": counts, "descriptors": codes.values}
    return found if codes.scales is None else {**found, "descriptor_scales": codes.scales}
