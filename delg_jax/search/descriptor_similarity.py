"""Cosines of descriptors, in any encoding of the feature store."""

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search import binary

Array = jax.Array | np.ndarray


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
    scaled by a factor of its own. uint8 are packed signs, see `binary.binarize`, taken as unit
    vectors of +-1 / sqrt(D).

    Args:
      first: float or int8 [K, D], or uint8 [K, D / 8].
      second: [L, ...], of the same encoding; floats may differ in width.
      hamming: how packed signs are compared, one of `binary.HAMMING`.
      dimension: D of packed signs, if it is not 8 times the number of bytes.

    Returns:
      float32 [K, L].
    """
    if first.dtype == jnp.uint8:
        return binary.cosines(first, second, hamming, dimension)
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
