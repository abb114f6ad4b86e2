"""Building a similarity graph: one job claims it, and its processes share the chunks."""

import contextlib
import logging
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.locks import held_by_first
from delg_jax.progress import Progress
from delg_jax.search import global_search
from delg_jax.search.batching import Rows, padded_rows
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import Lists, merge
from delg_jax.search.graph_store import GraphStore

# From a range of database images to their neighbours, numbered as in the database
Search = Callable[[range], Lists]
# From the number of an image to a search over that image and all after it
Searches = Callable[[int], Search]

_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(
    store: GraphStore,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    weights: str,
    overwrite: bool = False,
) -> Iterator[None]:
    """Locks the graph for this job within the block; a whole graph is not locked.

    Args:
      store: of the graph.
      config: the whole tree.
      sections: prefixes of the fields that decide the graph.
      weights: digest of the weights that the features come from.
      overwrite: whether a graph that is damaged or of another configuration is deleted instead of
        refused.

    Raises:
      UserError: if another job builds the graph, or it was made by another configuration.
    """
    extra = {"weights": weights}
    neighbours, block = config.search.graph_neighbours, config.search.graph_block
    is_ours = outputs.is_of(store.folder, config, sections, extra)
    # Before any process changes it
    if distributed.agree(is_ours and _is_readable(store), str(store.folder)):
        yield
        return

    def claim() -> None:
        """Keeps what can be reused in the folder, and creates the arrays to fill."""
        outputs.claim_usable(
            store.folder,
            config,
            sections,
            lambda: _prepare(store, min(neighbours, len(store)), block),
            overwrite,
            extra,
        )

    with held_by_first(store.folder, claim, "similarity graph"):
        yield


def fill(
    store: GraphStore,
    searches: Searches,
    neighbours: int,
    title: str,
    extend: bool = True,
) -> None:
    """Computes and writes this process's share of the missing chunks.

    Chunks that a whole graph of fewer images has are extended: their images are searched against
    the new images only. The result equals a new graph, up to the rounding of similarities.

    Args:
      store: claimed, the same in all processes.
      searches: of the images against themselves.
      neighbours: kept per image, r; more than N means N.
      title: of the progress bar.
      extend: whether to reuse the graph of fewer images; False if similarities depend on the
        whole database.
    """
    previous = store.previous() if extend else None
    opened: dict[int, Search] = {}
    with distributed.shared_out(str(store.folder), store.missing(), store.finish) as mine:
        images = sum(map(len, mine))
        done = len(store) - images if distributed.shard()[1] == 1 else 0
        with Progress(title, images + done, done=done) as progress:
            for chunk in mine:
                is_known = previous is not None and chunk.stop <= len(previous)
                first = len(previous) if previous is not None and is_known else 0
                if first not in opened:
                    opened[first] = searches(first)
                lists = opened[first](chunk)
                if previous is not None and first:
                    rows = slice(chunk.start, chunk.stop)
                    old = previous.similarities[rows], previous.indices[rows]
                    lists = merge(old, lists, min(neighbours, len(store)))
                store.write(chunk, lists)
                progress.advance(len(chunk))


def local_searches(
    database: LocalFeatures,
    engine: Callable[[LocalFeatures], LocalSearch],
    neighbours: int,
    block: int,
) -> Searches:
    """Searches by local similarity.

    Args:
      database: features of the N images; arrays, or rows on disk.
      engine: opens the search over a part of them.
      neighbours: kept of each image, at most.
      block: images searched at a time.

    Returns:
      The searches; their ranges have at most `block` images.
    """
    block = min(block, max(len(database.mask), 1))

    def search_from(first: int) -> Search:
        """The search over the images from `first` on."""
        search = engine(LocalFeatures(*(rows_from(field, first) for field in database)))

        def neighbours_of(images: range) -> Lists:
            lists = search.top(
                padded_rows(database.descriptors, images.start, block),
                padded_rows(database.mask, images.start, block),
                neighbours,
            )
            return _numbered(lists, images, first)

        return neighbours_of

    return search_from


def global_searches(
    descriptors: Rows, neighbours: int, query_block: int, database_block: int
) -> Searches:
    """Searches by the cosine of global descriptors.

    Args:
      descriptors: float [N, D], unit norm; an array, or rows on disk.
      neighbours: kept of each image, at most.
      query_block: images searched at a time.
      database_block: database images compared at a time.

    Returns:
      The searches; their ranges have at most `query_block` images.
    """
    query_block = min(query_block, max(len(descriptors), 1))

    def search_from(first: int) -> Search:
        """The search over the images from `first` on."""
        database = rows_from(descriptors, first)

        def neighbours_of(images: range) -> Lists:
            queries = padded_rows(descriptors, images.start, query_block)
            lists = global_search.search(queries, database, neighbours, database_block)
            return _numbered(lists, images, first)

        return neighbours_of

    return search_from


def rows_from(rows: Any, first: int) -> Any:
    """The rows of an array or `StoredRows` from `first` on; those on disk stay there."""
    if not first or isinstance(rows, np.ndarray):
        return rows[first:] if first else rows

    def read(wanted: slice | np.ndarray) -> np.ndarray:
        if isinstance(wanted, slice):
            return rows[wanted.start + first : wanted.stop + first]
        return rows[wanted + first]

    return StoredRows(read, (len(rows) - first, *rows.shape[1:]), rows.dtype)


def _numbered(lists: Sequence[jax.Array | np.ndarray], images: range, first: int) -> Lists:
    """Lists [block, r] without padding; image 0 of the search has the number `first`."""
    similarities, indices = (np.asarray(part)[: len(images)] for part in lists)
    return similarities, indices + np.int32(first)


def _prepare(store: GraphStore, neighbours: int, block: int) -> None:
    """Reads the previous graph, which shows any damage, and creates the arrays of the new one."""
    if store.is_stale():
        _LOG.warning(
            "%s: is of other features, or of an earlier version; built again", store.folder
        )
    store.previous()
    store.start(neighbours, block)


def _is_readable(store: GraphStore) -> bool:
    """Whether the graph is whole; if it is damaged, the claim reports it."""
    try:
        return store.is_whole() and store.graph() is not None
    except UserError:
        return False
