"""How a similarity graph becomes whole: one job claims it, and its processes share its chunks."""

import contextlib
import logging
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.lock import held_by_first
from delg_jax.features.storage.stored_rows import StoredRows
from delg_jax.progress import Progress
from delg_jax.search import global_search
from delg_jax.search.batching import padded_rows
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import Lists, merge
from delg_jax.search.graph_store import GraphStore

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


_LOG = logging.getLogger(__name__)


@contextlib.contextmanager
def claimed(
    store: GraphStore,
    config: ml_collections.ConfigDict,
    sections: tuple[str, ...],
    weights: str,
    overwrite: bool = False,
) -> Iterator[None]:
    """Keeps the graph for this job alone while the block lasts; one that is whole is not locked.

    Args:
      store: of the graph.
      config: the whole tree.
      sections: prefixes of the fields that decide the graph.
      weights: digest of what the features come from.
      overwrite: whether a graph of another configuration, or one that is damaged, is deleted
        instead of refused.

    Raises:
      UserError: if another job builds the graph, or it was made by another configuration.
    """
    extra = {"weights": weights}
    known = artefacts.is_of(store.folder, config, sections, extra)
    if distributed.agree(known and _is_readable(store)):  # before any of them changes it
        yield
        return

    def claim() -> None:
        """Leaves the folder with what can be used of it, and the arrays that are to be filled."""
        artefacts.claim_usable(
            store.folder,
            config,
            sections,
            lambda: _prepare(store, config.search),
            overwrite,
            extra,
        )

    with held_by_first(store.folder, claim, "similarity graph"):
        yield


def fill(
    store: GraphStore,
    against: Searches,
    neighbours: int,
    title: str,
    complete: bool = True,
) -> None:
    """Lets every process of the job write its share of what is missing.

    Chunks of images that a whole graph of fewer images has are completed from it: they are
    searched against the new images only. The result is that of a new graph, up to the rounding of
    similarities.

    Args:
      store: claimed, the same in all processes.
      against: the searches of the images against themselves.
      neighbours: similarities kept per image, r; more than N means N.
      title: of the progress bar.
      complete: whether lists of before are used; False if similarities depend on what else is in
        the database.
    """
    before = store.before() if complete else None
    searches = {}
    with distributed.shared_out(str(store.folder), store.missing(), store.finish) as mine:
        images = sum(map(len, mine))
        done = len(store) - images if distributed.shard()[1] == 1 else 0
        with Progress(title, images + done, done=done) as progress:
            for run in mine:
                first = len(before) if before is not None and run.stop <= len(before) else 0
                if first not in searches:
                    searches[first] = against(first)
                lists = searches[first](run)
                if first:
                    rows = slice(run.start, run.stop)
                    old = before.similarities[rows], before.indices[rows]
                    lists = merge(old, lists, min(neighbours, len(store)))
                store.write(run, lists)
                progress.advance(len(run))


def _prepare(store: GraphStore, search: ml_collections.ConfigDict) -> None:
    """Reads the graph of before, where damage shows, and makes the arrays of the new one."""
    if store.is_stale():
        _LOG.warning(
            "%s: is of other features, or of an earlier version; built again", store.folder
        )
    store.before()
    store.start(min(search.graph_neighbours, len(store)), search.graph_block)


def _is_readable(store: GraphStore) -> bool:
    """Whether the graph is whole; what is wrong with it is for its builder to say."""
    try:
        return store.is_whole() and store.graph() is not None
    except UserError:
        return False
