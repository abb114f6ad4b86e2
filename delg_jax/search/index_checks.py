"""Checks of the arrays of a search index, so that a damaged one is refused."""

import jax
import numpy as np


def require_counts(**counts: object) -> None:
    """Raises a ValueError unless all are integers in [0, 2^31)."""
    for name, value in counts.items():
        if type(value) is not int or not 0 <= value < 2**31:
            raise ValueError(f"{name} is {value!r}")


def require_offsets(offsets: np.ndarray, lists: int, entries: int) -> None:
    """Raises a ValueError unless offsets divide entries into lists.

    Args:
      offsets: int64 [lists + 1], where each list starts, and the end of the last.
      lists: how many.
      entries: of all lists.
    """
    if offsets.dtype.kind != "i" or offsets.shape != (lists + 1,):
        raise ValueError(f"offsets have shape {offsets.shape}, for {lists} lists")
    if offsets[0] != 0 or offsets[-1] != entries or (np.diff(offsets) < 0).any():
        raise ValueError(f"offsets do not divide {entries} entries into lists")


def require_images(images: np.ndarray, count: int) -> None:
    """Raises a ValueError unless all image numbers [E] are below `count`; reads them once."""
    if images.dtype.kind != "i" or images.ndim != 1:
        raise ValueError(f"images have dtype {images.dtype} and shape {images.shape}")
    if images.min(initial=0) < 0 or images.max(initial=-1) >= count:
        raise ValueError(f"image numbers must lie in [0, {count})")


def require_dimension(name: str, descriptors: jax.Array | np.ndarray, dimension: int) -> None:
    """Raises a ValueError unless `descriptors` [..., D] have the dimension of the index."""
    if descriptors.shape[-1] != dimension:
        raise ValueError(
            f"`{name}` (D={descriptors.shape[-1]}) must have the dimension of the index "
            f"(D={dimension})"
        )
