"""Encodings of unit vectors on disk: floats, int8 with a scale per vector, one bit."""

from typing import NamedTuple

import numpy as np

from delg_jax.errors import UserError

# Type on disk by encoding
STORED = {"float32": "float32", "float16": "float16", "int8": "int8", "sign": "uint8"}
ENCODINGS = tuple(STORED)
GLOBAL_DTYPES = ("float32", "float16")  # of global descriptors

_INT8 = 127  # largest code


class Codes(NamedTuple):
    """Encoded vectors.

    Attributes:
      values: float32 or float16 [..., D], int8 [..., D], or packed signs uint8 [..., D / 8].
      scales: float16 [...], that int8 codes are multiplied by; None for other encodings.
    """

    values: np.ndarray
    scales: np.ndarray | None


def encode(vectors: np.ndarray, encoding: str) -> Codes:
    """Encodes unit vectors.

    Args:
      vectors: float [..., D].
      encoding: one of `ENCODINGS`; `sign` keeps one bit of each dimension, x > 0 (DELG*, section
        4.3), packed with the first dimension in the highest bit.

    Returns:
      Codes.

    Raises:
      UserError: for signs of vectors whose D is not a multiple of 8.
    """
    if encoding == "sign":
        if vectors.shape[-1] % 8:
            rule = f"needs a multiple of 8 dimensions, the descriptors have {vectors.shape[-1]}"
            raise UserError("config.extract.local_encoding", encoding, rule)
        return Codes(np.packbits(vectors > 0, axis=-1), None)
    if encoding != "int8":
        return Codes(vectors.astype(encoding), None)
    largest = np.abs(vectors).max(axis=-1, initial=0.0)
    # Rounded up, so that no code exceeds 127
    scales = np.nextafter((largest / _INT8).astype(np.float16), np.float16(np.inf))
    scales = np.where(largest > 0, scales, np.float16(0))
    steps = np.where(scales > 0, scales, 1).astype(np.float32)
    return Codes(np.round(vectors / steps[..., None]).astype(np.int8), scales)


def decode(codes: Codes, encoding: str) -> np.ndarray:
    """Decodes vectors.

    Args:
      codes: from `encode`.
      encoding: that they were encoded with.

    Returns:
      [..., D]: float32 for float32, else float16; signs become +-1 / sqrt(D).
    """
    if encoding == "sign":
        bits = np.unpackbits(codes.values, axis=-1)
        unit = np.float16(1.0 / np.sqrt(max(bits.shape[-1], 1)))
        return np.array([-unit, unit], np.float16)[bits]
    if codes.scales is not None:
        return codes.values * codes.scales[..., None]
    return codes.values
