"""Putative matches between the local features of a query and those of other images."""

from functools import partial

import jax
import jax.numpy as jnp

from delg_jax.search import descriptor_similarity


@partial(jax.jit, static_argnames=("max_distance", "ratio", "mutual", "hamming", "dimension"))
def match(
    query_descriptors: jax.Array,
    query_mask: jax.Array,
    descriptors: jax.Array,
    mask: jax.Array,
    max_distance: float,
    ratio: float = 0.0,
    mutual: bool = False,
    hamming: str = "popcount",
    dimension: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Finds, for each query feature, its nearest neighbour in each of M images.

    As in the official code, several query features may match the same feature of the image. A
    nearest neighbour is a match if its L2 distance is strictly below `max_distance` and it passes
    the enabled tests. Ties go to the lower index. Memory holds [Kq, K] similarities of one image.

    The dtype gives the encoding of the descriptors, see `descriptor_similarity.cosines`.

    Args:
      query_descriptors: float or int8 [Kq, D], or uint8 [Kq, D / 8].
      query_mask: bool [Kq], False on padding.
      descriptors: [M, K, ...], of the same encoding; floats may differ in width.
      mask: bool [M, K].
      max_distance: L2 distance between unit descriptors, in (0, 2].
      ratio: a match only if distance < ratio * distance to the second neighbour (Lowe, IJCV
        2004); 0 = no test. An image of one feature has its second neighbour at infinity.
      mutual: keep a match only if the query feature is also the nearest one of its neighbour.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.
      dimension: D of packed signs, if it is not 8 times the number of bytes.

    Returns:
      Index int32 [M, Kq] of the nearest neighbour (0 if the image has no feature), and
      valid bool [M, Kq].

    Raises:
      ValueError: if the encodings differ.
    """
    descriptor_similarity.check_kinds(query_descriptors, descriptors)

    def one_image(image: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Matches the query to one image's descriptors [K, D] and mask [K]."""
        features, present = image
        found = descriptor_similarity.cosines(query_descriptors, features, hamming, dimension)
        found = jnp.where(present[None, :], found, -jnp.inf)
        return _nearest(found, query_mask, max_distance, ratio, mutual)

    # One image at a time: a CPU multiplies matrices faster without a batch axis
    return jax.lax.map(one_image, (descriptors, mask))


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


def _first_maximum(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index and value of the first maximum of each row.

    Two plain reductions are vectorised on a CPU; `argmax` is not.
    """
    columns = jnp.arange(values.shape[1], dtype=jnp.int32)
    best = values.max(axis=1)
    index = jnp.where(values == best[:, None], columns[None, :], values.shape[1]).min(axis=1)
    return index, best


def _distance(cosine: jax.Array) -> jax.Array:
    """L2 distance between unit vectors; infinite for a cosine of minus infinity."""
    return jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosine, 0.0))
