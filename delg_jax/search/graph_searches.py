"""The searches that a similarity graph is made of: database images against their own database."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.stored_rows import StoredRows
from delg_jax.search import global_search
from delg_jax.search.blocks import padded_rows
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import Lists

Rows = np.ndarray | StoredRows
# The best lists of a range of database images, where neighbours have their number in the database.
Search = Callable[[range], Lists]
# From the number of an image to a search over it and the images behind it.
Searches = Callable[[int], Search]


def local_searches(
    database: LocalFeatures,
    engine: Callable[[LocalFeatures], LocalSearch],
    neighbours: int,
    block: int,
) -> Searches:
    """Searches by local similarity.

    Args:
      database: features of the N images; arrays, or rows on disk.
      engine: makes the search over some of them.
      neighbours: kept of each image, at most.
      block: images searched at a time; memory holds their [block, N] similarities.

    Returns:
      The searches; their ranges have at most `block` images.
    """
    block = min(block, max(len(database.mask), 1))

    def against(first: int) -> Search:
        """The search over the images from `first` on."""
        search = engine(LocalFeatures(*(rows_from(field, first) for field in database)))

        def best(images: range) -> Lists:
            found = search(
                padded_rows(database.descriptors, images.start, block),
                padded_rows(database.mask, images.start, block),
            )
            lists = jax.lax.top_k(jnp.asarray(found), min(neighbours, found.shape[1]))
            return _numbered(lists, images, first)

        return best

    return against


def global_searches(descriptors: Rows, neighbours: int, block: int, blocks_of: int) -> Searches:
    """Searches by the cosine of global descriptors.

    Args:
      descriptors: float [N, D], unit norm; an array, or rows on disk.
      neighbours: kept of each image, at most.
      block: images searched at a time.
      blocks_of: database images in a block of similarities.

    Returns:
      The searches; their ranges have at most `block` images.
    """
    block = min(block, max(len(descriptors), 1))

    def against(first: int) -> Search:
        """The search over the images from `first` on."""
        database = rows_from(descriptors, first)

        def best(images: range) -> Lists:
            queries = padded_rows(descriptors, images.start, block)
            lists = global_search.search(queries, database, neighbours, blocks_of)
            return _numbered(lists, images, first)

        return best

    return against


def rows_from(rows: Rows, first: int) -> Rows:
    """The rows from one on; those on disk stay there."""
    if not first or isinstance(rows, np.ndarray):
        return rows[first:] if first else rows

    def read(wanted: slice | np.ndarray) -> np.ndarray:
        if isinstance(wanted, slice):
            return rows[wanted.start + first : wanted.stop + first]
        return rows[wanted + first]

    return StoredRows(read, (len(rows) - first, *rows.shape[1:]), rows.dtype)


def _numbered(lists: tuple[jax.Array, jax.Array], images: range, first: int) -> Lists:
    """Lists [block, r] without padding, their indices counted from the first database image."""
    similarities, indices = (np.asarray(part)[: len(images)] for part in lists)
    return similarities, indices + np.int32(first)
