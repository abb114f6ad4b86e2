"""The index verb: builds the similarity graph of an experiment's database in its workdir.

One job claims the graph, and its processes share the chunks.
"""

import contextlib
import dataclasses
import logging
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax import distributed
from delg_jax import workdir as outputs
from delg_jax.errors import UserError
from delg_jax.features.experiment import Extracted, extract, sections
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.storage.rows import StoredRows
from delg_jax.locks import held_by_first
from delg_jax.progress import Progress
from delg_jax.search import global_search
from delg_jax.search.batching import Rows, padded_rows
from delg_jax.search.engine_choice import (
    SearchSettings,
    build_engine,
    check_packed,
    deciding_fields,
    engine,
    exact_search,
    index_place,
)
from delg_jax.search.engines import CandidateSearch, LocalSearch
from delg_jax.search.graph import Lists, PairGraph, SimilarityGraph, merge
from delg_jax.search.graph_store import HEADER, GraphStore
from delg_jax.search.index_store import Place
from delg_jax.workdir import root_of

# Folders of the graphs below `index`
FOLDERS = {"local": "graph", "global": "global_graph"}

_GLOBAL_GRAPH_FIELDS: tuple[str, ...] = ("search.graph_neighbours", "search.graph_block")
# From a range of database images to their neighbours, numbered as in the database
Search = Callable[[range], Lists]
# From the number of an image to a search over that image and all after it
Searches = Callable[[int], Search]

_LOG = logging.getLogger(__name__)


def build_index(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    extracted: Extracted | None = None,
    features: str = "local",
) -> SimilarityGraph:
    """Builds the similarity graph, resumes an unfinished one, or extends that of fewer images.

    A graph of other features is built again. One of fewer images is extended if their features
    are the same.

    With `config.search.idf_images`, `config.search.candidates`, or the engines ivf and asmk,
    similarities depend on the whole database; then a graph of fewer images is not reused.

    Args:
      config: the whole tree.
      workdir: gets `index/graph` or `index/global_graph`, and the features if they are missing.
      overwrite: whether an index that is damaged or of another configuration is deleted instead
        of refused.
      extracted: the features, if the caller has them.
      features: `local` or `global`, the features to compare.

    Returns:
      The graph over the N database images.

    Raises:
      UserError: for a wrong configuration, data that cannot be used, or if another job builds the
        graph.
    """
    root = root_of(workdir)
    search = SearchSettings.of(config.search)
    check_packed(config)
    extracted = extracted or extract(config, root, overwrite)
    folder = root / "index" / FOLDERS[features]
    old = root / "index" / "graph.npz"
    if old.is_file():
        _LOG.warning("%s: of an older version, not used; you can delete it", old)
    database, memory = extracted.database, config.data.memory_megabytes
    store = GraphStore(folder, database.names, memory, database)
    fields = _GLOBAL_GRAPH_FIELDS
    if features == "local":  # it has candidates only
        fields = tuple(f for f in deciding_fields(config.search) if f != "search.estimated")
    decided_by = (*sections(config), *fields)
    output = outputs.Output.of(folder, config, decided_by, {"weights": extracted.weights})
    with claimed(store, output, search.graph_neighbours, search.graph_block, overwrite):
        if not store.is_whole():
            place = None
            needed = _compares_all_features(search) or search.idf_of == "words"
            if features == "local" and search.engine == "asmk" and needed:
                build_engine(config, root, overwrite, extracted)  # by all processes
                place = index_place(config, root, extracted, overwrite)
            searches = _searches(features, extracted, search, place)
            learns = search.engine in ("ivf", "asmk")
            depends_on_all = search.idf_images or search.candidates or learns
            extend = features == "global" or not depends_on_all
            title = f"graph of {features} similarities"
            fill(store, searches, search.graph_neighbours, title, extend)
    return store.graph()


def is_built(workdir: pathlib.Path, features: str) -> bool:
    """Whether `workdir` has a complete graph of `features`, `local` or `global`."""
    return (workdir / "index" / FOLDERS[features] / HEADER).is_file()


def pair_graph(extracted: Extracted, search: SearchSettings, opened: LocalSearch) -> PairGraph:
    """Similarities of pairs of the database by local features, of which nothing is stored.

    Args:
      extracted: the features.
      search: of the database.
      opened: the engine that searches the database, whose words may have the weights.

    Returns:
      The graph.
    """
    local = extracted.database.local_features(search.compared_for_graph, search.packed)
    exact = exact_search(local, search)
    idf = _word_idf(search, opened)
    return PairGraph(exact if idf is None else dataclasses.replace(exact, idf=idf))


def _word_idf(search: SearchSettings, opened: LocalSearch) -> Any:
    """The idf of database images by the words of the engine; None if features have their own."""
    if search.idf_of != "words":
        return None
    assert isinstance(opened, CandidateSearch)  # `SearchSettings`
    return opened.image_idf


def _compares_all_features(search: SearchSettings) -> bool:
    """Whether the graph compares the features that searches compare."""
    return search.graph_features in (0, search.max_features)


def _searches(
    features: str, extracted: Extracted, search: SearchSettings, place: Place | None
) -> Searches:
    """The searches of the database against itself, by local or global features.

    `place` is that of the index of the whole database, which searches use, if they need one.
    """
    neighbours, block = search.graph_neighbours, search.graph_block
    if features == "global":
        descriptors = extracted.database.global_descriptors()
        return global_searches(descriptors, neighbours, block, search.global_block)
    local = extracted.database.local_features(search.compared_for_graph, search.packed)
    search = dataclasses.replace(search, estimated=0)  # a graph has similarities of candidates
    idf = None
    if search.idf_of == "words":
        whole = extracted.database.local_features(search.max_features, search.packed)
        idf = _word_idf(search, engine(whole, search, place))
    own = place if _compares_all_features(search) else None
    return local_searches(local, lambda some: engine(some, search, own, idf), neighbours, block)


@contextlib.contextmanager
def claimed(
    store: GraphStore,
    output: outputs.Output,
    neighbours: int,
    block: int,
    overwrite: bool = False,
) -> Iterator[None]:
    """Locks the graph for this job within the block; a whole graph is not locked.

    Args:
      store: of the graph.
      output: the graph, in the folder of the store.
      neighbours: kept per image, r; more than N means N.
      block: images in a chunk.
      overwrite: whether a graph that is damaged or of another configuration is deleted instead of
        refused.

    Raises:
      UserError: if another job builds the graph, or it was made by another configuration.
    """
    # Before any process changes it
    if distributed.agree(output.is_there() and _is_readable(store), str(store.folder)):
        yield
        return

    def claim() -> None:
        """Keeps what can be reused in the folder, and creates the arrays to fill."""
        output.claim_usable(lambda: _prepare(store, min(neighbours, len(store)), block), overwrite)

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
