"""One-bit descriptors: the sign of each dimension, packed, and their similarity."""

import jax
import jax.numpy as jnp
import numpy as np

HAMMING = ("popcount", "products")  # algorithms with the same result

_BITS = 8  # of a byte
_WORD = 4  # bytes counted at a time


def binarize(descriptors: jax.Array | np.ndarray) -> jax.Array:
    """Keeps one bit of each dimension, b(x) = x > 0 (DELG*, paper, section 4.3).

    Args:
      descriptors: float [..., D].

    Returns:
      uint8 [..., ceil(D / 8)], the first dimension in the highest bit; the last byte is padded
      with zeros.
    """
    return jnp.packbits(descriptors > 0, axis=-1)


def hamming(first: jax.Array, second: jax.Array) -> jax.Array:
    """Number of bits that differ.

    Args:
      first: uint8 [K, D / 8].
      second: uint8 [L, D / 8].

    Returns:
      int32 [K, L].
    """
    first, second = _words(first), _words(second)
    count = jnp.zeros((first.shape[0], second.shape[0]), jnp.int32)
    for one, other in zip(first.T, second.T, strict=True):  # one fused loop over all pairs
        differing = jax.lax.population_count(one[:, None] ^ other[None, :])
        count += differing.astype(jnp.int32)
    return count


def cosines(
    first: jax.Array, second: jax.Array, method: str = "popcount", dimension: int | None = None
) -> jax.Array:
    """Cosine of vectors of +1 and -1: 1 - 2 hamming / D.

    Args:
      first: uint8 [K, D / 8].
      second: uint8 [L, D / 8].
      method: `popcount`, or `products` of +1 and -1, for devices that multiply matrices faster
        than they count bits. The results are equal.
      dimension: D; None for all bits of the bytes. Bits beyond D must be equal everywhere.

    Returns:
      float32 [K, L].

    Raises:
      ValueError: for an unknown method.
    """
    if method not in HAMMING:
        raise ValueError(f"`method` (={method!r}) must be one of {', '.join(HAMMING)}")
    bits = _BITS * first.shape[-1]
    dim = bits if dimension is None else dimension
    if method == "popcount":
        agreement = dim - 2 * hamming(first, second)
    else:
        agreement = jax.lax.dot_general(
            _signs(first),
            _signs(second),
            (((1,), (1,)), ((), ())),
            preferred_element_type=jnp.int32,
        )
        agreement -= bits - dim  # the padding of the last byte agrees
    return agreement.astype(jnp.float32) / dim


def _words(packed: jax.Array) -> jax.Array:
    """Bytes [K, D / 8] as words uint32 [K, D / 32], padded with zeros, which never differ."""
    packed = jnp.pad(packed, ((0, 0), (0, -packed.shape[1] % _WORD)))
    return jax.lax.bitcast_convert_type(packed.reshape(len(packed), -1, _WORD), jnp.uint32)


def _signs(packed: jax.Array) -> jax.Array:
    """Bits [K, D / 8] as int8 [K, D] of +1 and -1."""
    return 2 * jnp.unpackbits(packed, axis=-1).astype(jnp.int8) - 1
