"""The index verb: builds the similarity graph of an experiment's database in its workdir."""

import logging
import pathlib

import ml_collections

from delg_jax.features.experiment import Extracted, extract, sections
from delg_jax.search.engine_choice import (
    SearchSettings,
    build_engine,
    check_packed,
    deciding_fields,
    engine,
    exact_search,
    index_place,
)
from delg_jax.search.graph import PairGraph, SimilarityGraph
from delg_jax.search.graph_building import Searches, claimed, fill, global_searches, local_searches
from delg_jax.search.graph_store import HEADER, GraphStore
from delg_jax.search.index_store import Place
from delg_jax.workdir import root_of

_LOG = logging.getLogger(__name__)

# Folders of the graphs below `index`
FOLDERS = {"local": "graph", "global": "global_graph"}

_GLOBAL_GRAPH_FIELDS = ("search.graph_neighbours", "search.graph_block")


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
    fields = deciding_fields(config.search) if features == "local" else _GLOBAL_GRAPH_FIELDS
    decided_by = (*sections(config), *fields)
    with claimed(store, config, decided_by, extracted.weights, overwrite):
        if not store.is_whole():
            place = None
            same = search.graph_features in (0, search.max_features)
            if features == "local" and search.engine == "asmk" and same:
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


def pair_graph(extracted: Extracted, search: SearchSettings) -> PairGraph:
    """Similarities of pairs of the database by local features, of which nothing is stored."""
    local = extracted.database.local_features(search.compared_for_graph, search.packed)
    return PairGraph(exact_search(local, search))


def _searches(
    features: str, extracted: Extracted, search: SearchSettings, place: Place | None
) -> Searches:
    """The searches of the database against itself, by local or global features.

    The index at `place` is used if there is one, which then is of the whole database.
    """
    neighbours, block = search.graph_neighbours, search.graph_block
    if features == "global":
        descriptors = extracted.database.global_descriptors()
        return global_searches(descriptors, neighbours, block, search.global_block)
    local = extracted.database.local_features(search.compared_for_graph, search.packed)
    return local_searches(local, lambda some: engine(some, search, place), neighbours, block)
