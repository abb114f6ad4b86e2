"""Putative matches between the local features of a query and those of other images."""

from functools import partial

import jax
import jax.numpy as jnp

from delg_jax.rerank import binary


@partial(jax.jit, static_argnames=("max_distance", "ratio", "mutual", "hamming", "chunk"))
def match(
    query_descriptors: jax.Array,
    query_mask: jax.Array,
    descriptors: jax.Array,
    mask: jax.Array,
    max_distance: float,
    ratio: float = 0.0,
    mutual: bool = False,
    hamming: str = "popcount",
    chunk: int = 1,
) -> tuple[jax.Array, jax.Array]:
    """Finds, for each query feature, its nearest neighbour in each of M images.

    The direction is that of the official code, so several query features may share a feature
    of the image. A nearest neighbour is a match if its L2 distance is strictly below
    `max_distance` and it passes the tests that are on. Ties go to the lower index.

    The type of the descriptors says what they are. Floats of any width are unit vectors. int8
    are unit vectors times a scale of each vector's own, which its length gives back. uint8 are
    packed signs, see `binary.binarize`, taken as unit vectors of +-1 / sqrt(D).

    Args:
      query_descriptors: float or int8 [Kq, D], or uint8 [Kq, D / 8].
      query_mask: bool [Kq], False on padding.
      descriptors: [M, K, ...], of the same kind; floats may differ in width.
      mask: bool [M, K].
      max_distance: L2 distance between unit descriptors, in (0, 2].
      ratio: matches only if distance < ratio * distance to the second neighbour (Lowe, IJCV
        2004); 0 = no test. An image of one feature has its second neighbour at infinity.
      mutual: keep a match only if the query feature is also the nearest one of its neighbour.
      hamming: how packed signs are compared, one of `binary.HAMMING`.
      chunk: images matched at a time; memory holds [chunk, Kq, K] similarities.

    Returns:
      Index int32 [M, Kq] of the nearest neighbour (0 if the image has no feature), and
      valid bool [M, Kq].

    Raises:
      ValueError: if the two sides are of different kinds.
    """
    if (kind := _kind(query_descriptors)) != _kind(descriptors):
        given = f"{query_descriptors.dtype}, {descriptors.dtype}"
        raise ValueError(f"`descriptors` (={given}) must be floats, int8 or uint8 on both sides")

    def one_image(image: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Matches the query to one image's descriptors [K, D] and mask [K]."""
        features, present = image
        if kind == "uint8":
            cosines = binary.cosines(query_descriptors, features, hamming)
        else:
            cosines = _products(_unit(query_descriptors), _unit(features))
        cosines = jnp.where(present[None, :], cosines, -jnp.inf)
        return _nearest(cosines, query_mask, max_distance, ratio, mutual)

    if chunk == 1:  # without the batch axis, which products on a CPU are slower with
        return jax.lax.map(one_image, (descriptors, mask))
    return jax.lax.map(one_image, (descriptors, mask), batch_size=chunk)


def _nearest(
    cosines: jax.Array, query_mask: jax.Array, max_distance: float, ratio: float, mutual: bool
) -> tuple[jax.Array, jax.Array]:
    """Index and validity [Kq] from cosines [Kq, K]; see `match`."""
    index, best = _first_maximum(cosines)
    # |f - g|^2 = 2 - 2 <f, g> for unit vectors
    valid = query_mask & (best > 1.0 - 0.5 * max_distance**2)
    if ratio:
        rest = jnp.where(jnp.arange(cosines.shape[1])[None, :] == index[:, None], -jnp.inf, cosines)
        valid &= _distance(best) < ratio * _distance(rest.max(axis=1))
    if mutual:
        backward, _ = _first_maximum(jnp.where(query_mask[:, None], cosines, -jnp.inf).T)
        valid &= backward[index] == jnp.arange(cosines.shape[0])
    return index, valid


def _kind(descriptors: jax.Array) -> str:
    """The type, one word for all floats."""
    is_float = jnp.issubdtype(descriptors.dtype, jnp.floating)
    return "float" if is_float else str(jnp.dtype(descriptors.dtype))


def _unit(descriptors: jax.Array) -> jax.Array:
    """Float32 unit vectors; floats are unit vectors already."""
    values = descriptors.astype(jnp.float32)
    if descriptors.dtype != jnp.int8:
        return values
    length = jnp.linalg.norm(values, axis=-1, keepdims=True)
    return values / jnp.maximum(length, 1.0)  # padding is zero


def _products(first: jax.Array, second: jax.Array) -> jax.Array:
    return jnp.matmul(first, second.T, precision=jax.lax.Precision.HIGHEST)


def _first_maximum(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index and value of the first maximum of each row.

    Two plain reductions: on a CPU they are vectorised, which `argmax` is not.
    """
    columns = jnp.arange(values.shape[1], dtype=jnp.int32)
    best = values.max(axis=1)
    index = jnp.where(values == best[:, None], columns[None, :], values.shape[1]).min(axis=1)
    return index, best


def _distance(cosine: jax.Array) -> jax.Array:
    """L2 distance between unit vectors; infinite for a cosine of minus infinity."""
    return jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosine, 0.0))
