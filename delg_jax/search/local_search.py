"""Exact local search: the similarity of images as sets of local descriptors.

The inverse document frequency of features is estimated on a sample of the database: features of
leaves, windows and sky occur in most photographs and say little about the place (Sparck Jones,
1972; Sivic, Zisserman, "Video Google", ICCV 2003). No vocabulary is needed: an image contains a
feature if one of its own features matches it.
"""

import functools
from collections.abc import Callable, Iterator, Sequence
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from delg_jax.search import descriptor_similarity
from delg_jax.search.batching import padded_rows, read_ahead
from delg_jax.search.kernels import SimilarityKernel

Array = jax.Array | np.ndarray

_CACHED_PRODUCTS = 2**22  # float32 that fit the cache of a CPU: 16 MB


def similarity(
    queries: Array,
    query_mask: Array,
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    weights: Array | None = None,
    hamming: str = "popcount",
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    """Asymmetric Chamfer similarity of every query to every database image.

    s(q, x) is the mean over the features f of q of k(max over the features g of x of <f, g>). This
    is the quantity that constrained approximate nearest neighbours estimate (Aiger, Araujo, Lynen,
    ICCV 2023), computed exactly. An image or a query without features gives 0.

    A device holds at most the products of one query with one block.

    Args:
      queries: descriptors [Q, Kq, ...] in an encoding of `descriptor_similarity.cosines`.
      query_mask: bool [Q, Kq], False on padding.
      database: [N, K, ...], of the same kind; array, memory map or rows on disk.
      mask: bool [N, K].
      kernel: k.
      block: database images compared at a time on each device; fewer on a CPU if the products
        would not fit its cache.
      weights: float [Q, Kq], factors of the votes of query features, see `idf_weights`; None for 1.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.
      devices: to split the database over; None for all of this process.

    Returns:
      Similarities float32 [Q, N].

    Raises:
      ValueError: if the dimensions or kinds differ, or `block` is not positive.
    """
    count = len(database)
    result = np.zeros((len(queries), count), np.float32)
    arguments = (queries, query_mask, database, mask, kernel, block, weights, hamming, devices)
    pending = None
    for start, found in _block_similarities(*arguments):
        if pending is not None:  # the device computes a block while the previous one is copied
            _store(result, *pending)
        pending = start, found
    if pending is not None:
        _store(result, *pending)
    return result


def best(
    queries: Array,
    query_mask: Array,
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    top: int,
    block: int = 32,
    weights: Array | None = None,
    hamming: str = "popcount",
    devices: Sequence[jax.Device] | None = None,
) -> tuple[np.ndarray, np.ndarray]:
    """The most similar images of every query.

    Memory holds one block and the lists, so the database may have any size.

    Args:
      queries: as of `similarity`, like the other arguments.
      query_mask: bool [Q, Kq].
      database: [N, K, ...].
      mask: bool [N, K].
      kernel: k.
      top: images wanted, M; more than N means N.
      block: database images compared at a time on each device.
      weights: float [Q, Kq], or None.
      hamming: one of `descriptor_similarity.HAMMING`.
      devices: to split the database over.

    Returns:
      Similarities float32 [Q, M], best first, and images int32 [Q, M]; ties by lower index.

    Raises:
      ValueError: as `similarity`, or if `top` is not positive.
    """
    if top <= 0:
        raise ValueError(f"`top` (={top}) must be positive")
    count = len(database)
    shape = len(queries), min(top, count)
    values: Array = np.full(shape, -np.inf, np.float32)
    images: Array = np.zeros(shape, np.int32)
    arguments = (queries, query_mask, database, mask, kernel, block, weights, hamming, devices)
    for start, found in _block_similarities(*arguments):
        # Without waiting, blocks that were read would pile up in memory
        values, images = jax.block_until_ready(_merged(values, images, found, start, count))
    return np.asarray(values), np.asarray(images)


@jax.jit
def _merged(
    values: jax.Array, images: jax.Array, found: jax.Array, start: int, count: int
) -> tuple[jax.Array, jax.Array]:
    """Lists [Q, M] with the similarities [Q, n] of the images from `start` on."""
    numbers = start + jnp.arange(found.shape[1], dtype=jnp.int32)
    found = jnp.where((numbers < count)[None, :], found, -jnp.inf)
    values = jnp.concatenate([values, found], axis=1)
    images = jnp.concatenate([images, jnp.broadcast_to(numbers[None, :], found.shape)], axis=1)
    # `top_k` takes the first of equal values, which is the lower image
    values, order = jax.lax.top_k(values, values.shape[1] - found.shape[1])
    return values, jnp.take_along_axis(images, order, axis=1)


def _store(result: np.ndarray, start: int, found: jax.Array) -> None:
    result[:, start : start + found.shape[1]] = np.asarray(found)[:, : result.shape[1] - start]


def _block_similarities(
    queries: Array,
    query_mask: Array,
    database: Array,
    mask: Array,
    kernel: SimilarityKernel,
    block: int,
    weights: Array | None,
    hamming: str,
    devices: Sequence[jax.Device] | None,
) -> Iterator[tuple[int, jax.Array]]:
    """Yields the first image and the similarities [Q, n] of each block; the last may exceed N."""
    descriptor_similarity.check_kinds(queries, database)
    devices = tuple(devices or jax.local_devices())
    if block > 0:
        share = -(-len(database) // len(devices))
        block = max(min(block, share, _images_in_cache(queries, database, devices[0])), 1)
    queries, query_mask = jax.device_put((queries, query_mask))
    if weights is None:
        weights = np.ones(query_mask.shape, np.float32)
    query_arrays = queries, query_mask, jax.device_put(np.asarray(weights, np.float32))
    compute = _on_devices(kernel, hamming, devices)
    for start, rows in read_ahead((database, mask), block * len(devices)):
        yield start, compute(*query_arrays, *rows)


def _images_in_cache(queries: Array, database: Array, device: jax.Device) -> int:
    """Images whose products with one query fit the cache of a CPU; all on other devices."""
    if device.platform != "cpu":
        return len(database)
    return _CACHED_PRODUCTS // max(queries.shape[1] * database.shape[1], 1)


@functools.cache
def _on_devices(
    kernel: SimilarityKernel, hamming: str, devices: tuple[jax.Device, ...]
) -> Callable:
    """`_block_similarity` with the images of a block split over devices."""
    compute = functools.partial(_block_similarity, kernel=kernel, hamming=hamming)
    every, each = PartitionSpec(), PartitionSpec("images")
    if len(devices) > 1:
        compute = jax.shard_map(
            compute,
            mesh=Mesh(np.array(devices), ("images",)),
            in_specs=(every, every, every, each, each),
            out_specs=PartitionSpec(None, "images"),
            check_vma=False,  # devices do not communicate in the loop over queries
        )
    return jax.jit(compute)


def _block_similarity(
    queries: jax.Array,
    query_mask: jax.Array,
    weights: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
    hamming: str,
) -> jax.Array:
    """Similarities [Q, N] of one block, one query at a time."""

    def one_query(query: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        descriptors, valid, weight = query
        found = votes(descriptors, valid, database, mask, kernel, hamming) * weight[:, None]
        return found.sum(axis=0) / jnp.maximum(valid.sum(), 1)

    return jax.lax.map(one_query, (queries, query_mask, weights))


def votes(
    descriptors: jax.Array,
    valid: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
    hamming: str = "popcount",
) -> jax.Array:
    """The votes of the features of one query for the images of one block.

    One large matrix product is fastest; the masked maximum is fused with reading it, so that the
    products are read once, while they are in the cache.

    Args:
      descriptors: [Kq, ...], in an encoding of `descriptor_similarity.cosines`.
      valid: bool [Kq], False on padding.
      database: [N, K, ...], of the same kind.
      mask: bool [N, K].
      kernel: k.
      hamming: how packed signs are compared.

    Returns:
      float32 [Kq, N], k of the best cosine; 0 on padding and for images without features.
    """
    images, features, width = database.shape
    flat = database.reshape(images * features, width)
    found = descriptor_similarity.cosines(descriptors, flat, hamming).reshape(-1, images, features)
    best_found = jnp.where(mask[None], found, -jnp.inf).max(axis=2)
    voted = jnp.where(jnp.isfinite(best_found), kernel(best_found), 0.0)
    return jnp.where(valid[:, None], voted, 0.0)


def among(
    descriptors: Array,
    mask: Array,
    kernel: SimilarityKernel,
    weights: Array | None = None,
    hamming: str = "popcount",
) -> np.ndarray:
    """The `similarity` of every image of a list to every image of it.

    The products of two images are computed once for both directions.

    Args:
      descriptors: [M, K, ...] in an encoding of `descriptor_similarity.cosines`.
      mask: bool [M, K].
      kernel: k.
      weights: float [M, K], factors of the votes of features; None for 1.
      hamming: how packed signs are compared.

    Returns:
      Float32 [M, M], the image that votes first.
    """
    count, features = mask.shape
    if not count or not features:
        return np.zeros((count, count), np.float32)
    block = min(max(int(_CACHED_PRODUCTS**0.5) // features, 1), count)
    if weights is None:
        weights = np.ones(mask.shape, np.float32)
    sides = (descriptors, mask, np.asarray(weights, np.float32))
    size = -(-count // block) * block
    rows, present, votes_of = (padded_rows(side, 0, size) for side in sides)
    found = _among(rows, present, votes_of, block, kernel, hamming)
    return np.asarray(found)[:count, :count]


@partial(jax.jit, static_argnames=("block", "kernel", "hamming"))
def _among(
    descriptors: jax.Array,
    mask: jax.Array,
    weights: jax.Array,
    block: int,
    kernel: SimilarityKernel,
    hamming: str,
) -> jax.Array:
    """`among` for a multiple of `block` images, two blocks at a time."""
    size, blocks = len(mask), len(mask) // block
    first, second = np.triu_indices(blocks)

    def of_block(number: jax.Array) -> list[jax.Array]:
        sides = (descriptors, mask, weights)
        return [jax.lax.dynamic_slice_in_dim(side, number * block, block) for side in sides]

    def voted(best: jax.Array, valid: jax.Array, weight: jax.Array) -> jax.Array:
        """Similarities [b, b] from the best products [b, K, b] of features [b, K]."""
        found = jnp.where(jnp.isfinite(best), kernel(best), 0.0)
        found = jnp.where(valid[:, :, None], found * weight[:, :, None], 0.0)
        return found.sum(axis=1) / jnp.maximum(valid.sum(axis=1), 1)[:, None]

    def both(numbers: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Similarities [b, b] of the images of two blocks, in both directions."""
        (rows, valid, weight), (others, present, theirs) = map(of_block, numbers)
        width = rows.shape[-1]
        flat = rows.reshape(-1, width), others.reshape(-1, width)
        products = descriptor_similarity.cosines(flat[0], flat[1], hamming)
        products = products.reshape(block, mask.shape[1], block, mask.shape[1])
        forth = jnp.where(present[None, None], products, -jnp.inf).max(axis=3)
        back = jnp.where(valid[:, :, None, None], products, -jnp.inf).max(axis=1)
        back = jnp.moveaxis(back, 0, 2)
        return voted(forth, valid, weight), voted(back, present, theirs)

    forth, back = jax.lax.map(both, (jnp.asarray(first), jnp.asarray(second)))
    result = jnp.zeros((blocks, blocks, block, block), jnp.float32)
    result = result.at[second, first].set(back).at[first, second].set(forth)
    return jnp.swapaxes(result, 1, 2).reshape(size, size)


def idf_weights(
    queries: Array,
    query_mask: Array,
    sample: Array,
    sample_mask: Array,
    kernel: SimilarityKernel,
    block: int = 32,
    hamming: str = "popcount",
) -> np.ndarray:
    """The weight of every query feature, its inverse document frequency log(n / df) / log(n).

    n is the number of images in the sample; df is the number of those that get a positive vote
    from the feature, at least 1.

    Args:
      queries: descriptors [Q, Kq, ...] in an encoding of `descriptor_similarity.cosines`.
      query_mask: bool [Q, Kq], False on padding.
      sample: [n, K, ...], images of the database, of the same kind; array or rows on disk.
      sample_mask: bool [n, K].
      kernel: of the similarity.
      block: images compared at a time.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.

    Returns:
      float32 [Q, Kq], 1 for a feature of at most one image of the sample, 0 for a feature of all;
      1 for all features if the sample has fewer than two images.
    """
    count = len(sample)
    shape = query_mask.shape
    if count < 2:
        return np.ones(shape, np.float32)
    queries, query_mask = jax.device_put((queries, query_mask))
    frequency = np.zeros(shape, np.int64)
    for _, (rows, present) in read_ahead((sample, sample_mask), min(block, count)):
        frequency += np.asarray(_frequency(queries, query_mask, rows, present, kernel, hamming))
    return (np.log(count / np.maximum(frequency, 1)) / np.log(count)).astype(np.float32)


@partial(jax.jit, static_argnames=("kernel", "hamming"))
def _frequency(
    queries: jax.Array,
    query_mask: jax.Array,
    database: jax.Array,
    mask: jax.Array,
    kernel: SimilarityKernel,
    hamming: str,
) -> jax.Array:
    """Number of images of one block, int32 [Q, Kq], that contain each query feature."""

    def one_query(query: tuple[jax.Array, jax.Array]) -> jax.Array:
        return (votes(*query, database, mask, kernel, hamming) > 0).sum(axis=1)

    return jax.lax.map(one_query, (queries, query_mask))
