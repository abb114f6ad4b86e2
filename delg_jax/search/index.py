"""The index stage: the similarity graph of an experiment's database, into its workdir."""

import logging
import pathlib

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError, fields_of, require_choice
from delg_jax.features.extract import Extracted, extract, sections
from delg_jax.features.local_features import LocalFeatures
from delg_jax.search import cann, engines, index_store, ivf
from delg_jax.search.binary import HAMMING
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.graph_building import Searches, claimed, fill, global_searches, local_searches
from delg_jax.search.graph_store import GraphStore
from delg_jax.search.index_store import Place
from delg_jax.search.ivf import IvfSettings
from delg_jax.search.kernels import KINDS, SimilarityKernel
from delg_jax.search.lsh_grids import GridSettings

_LOG = logging.getLogger(__name__)

# Folders of the graphs below `index`, and the fields of `config.search` that decide them
FOLDERS = {"local": "graph", "global": "global_graph"}
# Fields that decide the index of an approximate engine
_INDEX_FIELDS = {
    "cann": ("search.cann",),
    "ivf": tuple(f"search.ivf.{name}" for name in ("count", "seed", "rounds")),
}
# Fields that change speed and memory alone
_BLOCKS = ("global_block", "local_block", "query_block")
_GLOBAL_GRAPH_FIELDS = ("search.graph_neighbours", "search.graph_block")


def idle(engine: str | None) -> tuple[str, ...]:
    """Sections of the configuration that say nothing where local search is by `engine`."""
    return tuple(f"search.{name}" for name in _INDEX_FIELDS if name != engine)


def deciding(search: ml_collections.ConfigDict) -> tuple[str, ...]:
    """Fields of `config.search` that decide its results: no blocks, no engine that is not used."""
    fields = (f"search.{name}" for name in search if name not in _BLOCKS)
    return tuple(field for field in fields if field not in idle(search.engine))


def kernel(search: ml_collections.ConfigDict) -> SimilarityKernel:
    """The local similarity's kernel that `config.search` names; a UserError for a wrong value."""
    require_choice("config.search.kernel", search.kernel, KINDS)
    names = ("threshold", "power", "reach", "curve")
    fields = {name: search[name] for name in names}
    with fields_of("config.search", search):
        return SimilarityKernel(search.kernel, **fields)


def engine(
    database: LocalFeatures,
    search: ml_collections.ConfigDict,
    place: Place | None = None,
) -> LocalSearch:
    """The local search over a database that `config.search` asks for.

    Args:
      database: local features.
      search: the `config.search` tree.
      place: of the approximate engines' index; None to build one that is kept nowhere.

    Returns:
      The search.
    """
    descriptors, mask = database.descriptors, database.mask
    if search.engine == "cann":
        settings = _grids(search.cann)
        index = index_store.kept(
            place, settings, descriptors.shape, lambda: cann.build(descriptors, mask, settings)
        )
        return engines.cann(index)
    if search.engine == "ivf":
        settings = _ivf(search.ivf)
        index = index_store.kept(
            place, settings, descriptors.shape, lambda: ivf.build(descriptors, mask, settings)
        )
        return engines.ivf(index, kernel(search), search.ivf.probes, search.query_block)
    return engines.exact(
        descriptors,
        mask,
        kernel(search),
        search.local_block,
        search.idf_images,
        search.query_block,
        search.hamming,
    )


def index_place(
    config: ml_collections.ConfigDict,
    workdir: pathlib.Path,
    extracted: Extracted,
    overwrite: bool = False,
) -> Place | None:
    """Where the index of an approximate engine is kept, claimed for these features.

    Args:
      config: the whole tree.
      workdir: gets `index/cann` or `index/ivf`.
      extracted: the features.
      overwrite: whether an index of another configuration is deleted instead of refused.

    Returns:
      The place for `engine`; None for the exact engine, which needs none.

    Raises:
      UserError: if the folder holds an index of another configuration.
    """
    name = config.search.engine
    if name == "exact":
        return None
    decided_by = (*sections(config), "search.max_features", *_INDEX_FIELDS[name])
    folder = workdir / "index" / name
    artefacts.claim(folder, config, decided_by, overwrite, {"weights": extracted.weights})
    return Place(folder / "index", extracted.database.digest())


def build_engine(
    config: ml_collections.ConfigDict, workdir: str | pathlib.Path, overwrite: bool = False
) -> pathlib.Path | None:
    """Builds the index of an approximate engine, unless it is there.

    Args:
      config: the whole tree.
      workdir: gets `index/cann` or `index/ivf`, and features if there are none.
      overwrite: whether an index of another configuration is deleted instead of refused.

    Returns:
      The index's folder; None for the exact engine, which needs none.

    Raises:
      UserError: for a wrong configuration, or data that cannot be used.
    """
    check(config.search)
    if config.search.engine == "exact":
        return None
    root = pathlib.Path(workdir)
    extracted = extract(config, root, overwrite)
    place = index_place(config, root, extracted, overwrite)
    engine(extracted.database.local_features(config.search.max_features), config.search, place)
    return place.folder


def _grids(settings: ml_collections.ConfigDict) -> GridSettings:
    """The grids that `config.search.cann` asks for."""
    with fields_of("config.search.cann", settings):
        return GridSettings.from_scale(**settings)


def _ivf(settings: ml_collections.ConfigDict) -> IvfSettings:
    """The cells that `config.search.ivf` asks for."""
    with fields_of("config.search.ivf", settings):
        return IvfSettings(settings.count, settings.seed, settings.rounds)


def check(search: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong value in `config.search`."""
    kernel(search)
    require_choice("config.search.engine", search.engine, engines.ENGINES)
    require_choice("config.search.hamming", search.hamming, HAMMING)
    if search.engine != "exact":
        for name in ("packed", "idf_images"):
            if search[name]:
                rule = f"is for the engine exact; {search.engine} does without"
                raise UserError(f"config.search.{name}", search[name], rule)
    blocks = ("global_block", "local_block", "query_block", "graph_block", "graph_neighbours")
    positive = [(name, search[name]) for name in blocks]
    for name, value in (*positive, ("ivf.probes", search.ivf.probes)):
        if value < 1:
            raise UserError(f"config.search.{name}", value, "must be at least 1")
    _grids(search.cann)
    _ivf(search.ivf)
    for name in ("idf_images", "graph_features", "max_features"):
        if search[name] < 0:
            raise UserError(f"config.search.{name}", search[name], "must not be negative")


def build_index(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    extracted: Extracted | None = None,
    features: str = "local",
) -> SimilarityGraph:
    """Builds the similarity graph, goes on with a part of it, or completes that of fewer images.

    A graph of other features is built again. One of fewer images is completed if their features
    are the same.

    With `config.search.idf_images`, or the engine ivf, similarities depend on the whole
    database, so that a graph of fewer images does not help.

    Args:
      config: the whole tree.
      workdir: gets `index/graph`, or `index/global_graph`, and features if there are none.
      overwrite: whether an index of another configuration, or a damaged one, is deleted instead of
        refused.
      extracted: the features, if the caller has them.
      features: local or global, those whose similarities are taken.

    Returns:
      The graph over the N database images.

    Raises:
      UserError: for a wrong configuration, data that cannot be used, or if another job builds the
        graph.
    """
    root = pathlib.Path(workdir)
    search = config.search
    check(search)
    extracted = extracted or extract(config, root, overwrite)
    folder = root / "index" / FOLDERS[features]
    old = root / "index" / "graph.npz"
    if old.is_file():
        _LOG.warning("%s: of an older version, not used; it can be deleted", old)
    database, memory = extracted.database, config.data.memory_megabytes
    store = GraphStore(folder, database.names, memory, database)
    fields = deciding(config.search) if features == "local" else _GLOBAL_GRAPH_FIELDS
    decided_by = (*sections(config), *fields)
    with claimed(store, config, decided_by, extracted.weights, overwrite):
        if not store.is_whole():
            searches = _searches(features, extracted, search)
            dependent = search.idf_images or search.engine == "ivf"
            complete = features == "global" or not dependent
            title = f"graph of {features} similarities"
            fill(store, searches, search.graph_neighbours, title, complete)
    return store.graph()


def _searches(features: str, extracted: Extracted, search: ml_collections.ConfigDict) -> Searches:
    """The searches of the database against itself, by local or global features."""
    kept, block = search.graph_neighbours, search.graph_block
    if features == "global":
        descriptors = extracted.database.global_descriptors()
        return global_searches(descriptors, kept, block, search.global_block)
    count = search.graph_features or search.max_features
    local = extracted.database.local_features(count, search.packed)
    return local_searches(local, lambda some: engine(some, search), kept, block)
