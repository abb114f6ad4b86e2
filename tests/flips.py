"""Files with one bit flipped."""

from collections.abc import Iterator
from pathlib import Path

import numpy as np


def flips(path: Path, count: int | None = None, seed: int = 0) -> Iterator[int]:
    """Flips bits of a file one at a time, and restores the file.

    Args:
      path: the file.
      count: number of bits, drawn at random; None for all.
      seed: seed of the draw.

    Yields:
      The number of the flipped bit.
    """
    whole = path.read_bytes()
    bits = np.arange(8 * len(whole))
    if count is not None:
        bits = np.random.default_rng(seed).choice(bits, min(count, len(bits)), replace=False)
    try:
        for bit in bits.tolist():
            content = bytearray(whole)
            content[bit // 8] ^= 1 << bit % 8
            path.write_bytes(content)
            yield bit
    finally:
        path.write_bytes(whole)
