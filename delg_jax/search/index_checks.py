"""What the arrays of an index must be, so that a damaged one is refused and not misread."""

import numpy as np


def require_counts(**counts: object) -> None:
    """Raises a ValueError unless all are whole numbers that are not negative."""
    for name, value in counts.items():
        if type(value) is not int or not 0 <= value < 2**31:
            raise ValueError(f"{name} is {value!r}")


def require_runs(offsets: np.ndarray, runs: int, entries: int) -> None:
    """Raises a ValueError unless offsets cut entries into runs.

    Args:
      offsets: int64 [R + 1], where each run starts, and the end.
      runs: R.
      entries: of all runs.
    """
    if offsets.dtype.kind != "i" or offsets.shape != (runs + 1,):
        raise ValueError(f"offsets of the shape {offsets.shape} for {runs} parts")
    if offsets[0] != 0 or offsets[-1] != entries or (np.diff(offsets) < 0).any():
        raise ValueError("its parts do not follow one another")


def require_images(images: np.ndarray, count: int) -> None:
    """Raises a ValueError unless all numbers of images [E] are below `count`; reads them once."""
    if images.dtype.kind != "i" or images.ndim != 1:
        raise ValueError(f"images are {images.dtype} of the shape {images.shape}")
    if images.min(initial=0) < 0 or images.max(initial=-1) >= count:
        raise ValueError(f"it names images beyond the {count} that it has")
