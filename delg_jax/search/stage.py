"""The index stage: the similarity graph of an experiment's database, into its workdir."""

import pathlib

import ml_collections

from delg_jax import workdir as artefacts
from delg_jax.errors import UserError, require_choice
from delg_jax.features.local_features import LocalFeatures
from delg_jax.features.stage import Extracted, extract, sections
from delg_jax.progress import Progress
from delg_jax.search import engines, graph
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import KINDS, SimilarityKernel


def kernel(search: ml_collections.ConfigDict) -> SimilarityKernel:
    """The local similarity's kernel that `config.search` names; a UserError for a wrong value."""
    require_choice("config.search.kernel", search.kernel, KINDS)
    names = ("threshold", "power", "reach", "curve")
    fields = {name: search[name] for name in names}
    try:
        return SimilarityKernel(search.kernel, **fields)
    except ValueError as error:
        raise UserError("config.search", fields, str(error)) from error


def engine(database: LocalFeatures, search: ml_collections.ConfigDict) -> LocalSearch:
    """The local search over a database that `config.search` asks for."""
    return engines.exact(
        database.descriptors,
        database.mask,
        kernel(search),
        search.local_block,
        search.rarity_images,
    )


def check(search: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong value in `config.search`."""
    kernel(search)
    for name in ("rarity_images", "graph_features", "max_features"):
        if search[name] < 0:
            raise UserError(f"config.search.{name}", search[name], "must not be negative")


def build_index(
    config: ml_collections.ConfigDict,
    workdir: str | pathlib.Path,
    overwrite: bool = False,
    extracted: Extracted | None = None,
) -> SimilarityGraph:
    """Builds the similarity graph, unless it is there.

    Args:
      config: the whole tree.
      workdir: gets `index/graph.npz`, and features if there are none.
      overwrite: whether an index of another configuration is deleted instead of refused.
      extracted: the features, if the caller has them.

    Returns:
      The graph over the N database images.

    Raises:
      UserError: for a wrong configuration, or data that cannot be used.
    """
    root = pathlib.Path(workdir)
    extracted = extracted or extract(config, root, overwrite)
    search = config.search
    check(search)
    if search.graph_neighbours < 1:
        rule = "must be at least 1"
        raise UserError("config.search.graph_neighbours", search.graph_neighbours, rule)
    decided_by = (*sections(config), "search")
    extra = {"weights": extracted.weights}
    artefacts.claim(root / "index", config, decided_by, overwrite, extra)
    path = root / "index" / "graph.npz"
    if path.is_file():
        return SimilarityGraph.load(path)
    local = extracted.database.local_features(search.graph_features or search.max_features)
    with Progress("similarity graph", len(extracted.database)) as progress:
        built = graph.build(
            local.descriptors,
            local.mask,
            engine(local, search),
            search.graph_neighbours,
            progress=progress.advance,
        )
    built.save(path)
    return built
