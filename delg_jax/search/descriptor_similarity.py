"""Cosines of descriptors, in any encoding of the feature store; packed signs have one bit each."""

import jax
import jax.numpy as jnp
import numpy as np

Array = jax.Array | np.ndarray

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


def sign_cosines(
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


def check_kinds(first: Array, second: Array) -> None:
    """Raises a ValueError unless both sides have the same encoding and dimension D."""
    kinds = [_kind(side) for side in (first, second)]
    if kinds[0] != kinds[1] or kinds[0] not in ("float", "int8", "uint8"):
        given = f"{first.dtype}, {second.dtype}"
        raise ValueError(f"`descriptors` (={given}) must be floats, int8 or uint8 on both sides")
    if first.shape[-1] != second.shape[-1]:
        raise ValueError(
            f"`database` (D={second.shape[-1]}) must have the dimension of `queries` "
            f"(D={first.shape[-1]})"
        )


def cosines(
    first: jax.Array, second: jax.Array, hamming: str = "popcount", dimension: int | None = None
) -> jax.Array:
    """Cosines of all pairs of descriptors.

    The dtype gives the encoding. Floats of any width are unit vectors. int8 are unit vectors, each
    scaled by a factor of its own. uint8 are packed signs, see `binarize`, taken as unit vectors of
    +-1 / sqrt(D).

    Args:
      first: float or int8 [K, D], or uint8 [K, D / 8].
      second: [L, ...], of the same encoding; floats may differ in width.
      hamming: how packed signs are compared, one of `HAMMING`.
      dimension: D of packed signs, if it is not 8 times the number of bytes.

    Returns:
      float32 [K, L].
    """
    if first.dtype == jnp.uint8:
        return sign_cosines(first, second, hamming, dimension)
    return jnp.matmul(_unit(first), _unit(second).T, precision=jax.lax.Precision.HIGHEST)


def _kind(descriptors: Array) -> str:
    """The encoding: "float" for all floats, else the dtype."""
    is_float = jnp.issubdtype(descriptors.dtype, jnp.floating)
    return "float" if is_float else str(jnp.dtype(descriptors.dtype))


def _unit(descriptors: jax.Array) -> jax.Array:
    """Float32 unit vectors of floats or int8."""
    values = descriptors.astype(jnp.float32)
    if descriptors.dtype != jnp.int8:
        return values
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return values / jnp.maximum(length, 1.0)  # padding is zero
