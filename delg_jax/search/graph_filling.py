"""How a similarity graph becomes whole: one job claims it, and its processes share its chunks."""

import contextlib
import logging
from collections.abc import Iterator

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError
from delg_jax.features.storage.lock import held_by_first
from delg_jax.progress import Progress
from delg_jax.search.graph import merge
from delg_jax.search.graph_searches import Searches
from delg_jax.search.graph_store import GraphStore
from delg_jax.training import processes

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
    if processes.agree(known and _is_readable(store)):  # before any of them changes it
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
    with processes.shared_out(str(store.folder), store.missing(), store.finish) as mine:
        images = sum(map(len, mine))
        done = len(store) - images if processes.shard()[1] == 1 else 0
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
