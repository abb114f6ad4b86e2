"""The ways to rank a database: global and local search, each with its re-rankings."""

import ml_collections
import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, protocol_sets
from delg_jax.errors import UserError, require_choice
from delg_jax.features import Extracted
from delg_jax.features.extract import has_global, has_local
from delg_jax.features.formats.imported import is_imported
from delg_jax.rerank import diffusion, mds, query_expansion, superglobal
from delg_jax.retrieval import skipped, verification
from delg_jax.retrieval.ranking import Ranking, by_similarity
from delg_jax.retrieval.settings import (
    check_rerank,
    diffusion_settings,
    mds_settings,
    refuse_contradictions,
)
from delg_jax.search import SimilarityGraph, global_search, mean_direction
from delg_jax.search.engine_choice import check as check_search
from delg_jax.search.engine_choice import engine, kernel
from delg_jax.search.engines import LocalSearch
from delg_jax.search.index_store import Place

METHODS = (
    "global",
    "global+sp",
    "global+superglobal",
    "global+qe",
    "global+diffusion",
    "local",
    "local+sp",
    "local+mds",
    "local+mds+global",
    "local+diffusion",
)
_WITHOUT_LOCAL = ("global", "global+superglobal", "global+qe", "global+diffusion")


def check(subject: str, method: str, config: ml_collections.ConfigDict) -> None:
    """Finds mistakes before hours of extraction do.

    Args:
      subject: the field or flag that names the method.
      method: its value.
      config: the whole tree.

    Raises:
      UserError: if the method does not exist, or the configuration does not suit it.
    """
    check_rerank(config.rerank)
    check_search(config.search)
    require_choice(subject, method, METHODS)
    refuse_contradictions(method, config)
    imports = is_imported(config.extract)
    if "global" in method.split("+") and not has_global(config):
        rule = f"{method} needs global descriptors: set config.extract.imported_global"
        raise UserError(subject, method, rule)
    if method not in _WITHOUT_LOCAL and not has_local(config):
        needed = "extract.imported_local" if imports else "model.local_head=True"
        raise UserError(subject, method, f"{method} needs local features: set config.{needed}")


def needs_graph(method: str) -> bool:
    """Whether a method re-ranks by similarities among the database images."""
    return "mds" in method or "diffusion" in method


def rank_globally(
    extracted: Extracted, search: ml_collections.ConfigDict, depth: int = 0
) -> Ranking:
    """Ranks by the cosine of global descriptors; `depth` as of `search`."""
    depth = depth or len(extracted.database)
    return _by_cosine(extracted.queries.global_descriptors(), extracted, depth, search.global_block)


def _by_cosine(queries: np.ndarray, extracted: Extracted, depth: int, block: int) -> Ranking:
    database = extracted.database.global_descriptors()
    present = extracted.database.present("global")
    return Ranking(*global_search.search(queries, database, depth, block, present)[::-1])


def open_locally(
    extracted: Extracted, search: ml_collections.ConfigDict, place: Place | None = None
) -> LocalSearch:
    """The local search over the database; `place` as of `search`."""
    database = extracted.database.local_features(search.max_features, search.packed)
    mean_direction.warn(database, kernel(search))
    return engine(database, search, place)


def rank_locally(
    extracted: Extracted,
    search: ml_collections.ConfigDict,
    place: Place | None = None,
    opened: LocalSearch | None = None,
) -> Ranking:
    """Ranks by the local similarity; ties go to the lower index. Arguments as of `search`."""
    opened = opened or open_locally(extracted, search, place)
    queries = extracted.queries.local_features(search.max_features, search.packed)
    similarities = opened(queries.descriptors, queries.mask)
    return by_similarity(similarities, extracted.database.present("local"))


def search(
    method: str,
    extracted: Extracted,
    settings: ml_collections.ConfigDict,
    place: Place | None = None,
    depth: int = 0,
    opened: LocalSearch | None = None,
) -> Ranking:
    """Does the search that a method begins with.

    Args:
      method: one of `METHODS`.
      extracted: features.
      settings: the `config.search` tree.
      place: of an approximate engine's index, see `index_place`; None to keep none.
      depth: images that are kept of each ranking; 0 for all.
      opened: result of `open_locally`, if the caller keeps it.

    Returns:
      The ranking by global or local similarity.

    Raises:
      UserError: if no image of the database, or no query, has the features.
    """
    skipped.require_some(extracted, method.split("+")[0])
    if method.startswith("global"):
        return rank_globally(extracted, settings, depth)
    found = rank_locally(extracted, settings, place, opened)
    return found.first(depth) if depth else found


def rerank(
    method: str,
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph | None,
    settings: ml_collections.ConfigDict,
    global_block: int = 65_536,
) -> Ranking:
    """What a method makes of its search, unless it verifies spatially.

    Args:
      method: one of `METHODS` that does not end with `+sp`.
      extracted: features.
      first: result of `search`.
      graph: similarities among the database images, of the kind that `first` has; only methods
        with `needs_graph` use it.
      settings: the `config.rerank` tree.
      global_block: database images in a block, of the second search of query expansion.

    Returns:
      The ranking; images without features are in no short list, nobody's neighbours, and last.
    """
    if method in ("global", "local"):
        return first
    compared = first.compared()
    found = _rerank(method, extracted, compared, graph, settings, global_block)
    return found.followed_by(first)


def _rerank(
    method: str,
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph | None,
    settings: ml_collections.ConfigDict,
    global_block: int,
) -> Ranking:
    """`rerank` of a ranking of images that all have features."""
    if method == "global+superglobal":
        return refine(extracted, first, settings)
    if method == "global+qe":
        return expand(extracted, first, settings, global_block)
    if method.endswith("+diffusion"):
        return diffuse(first, graph, settings)
    if method == "local+mds":
        return embed(first, graph, settings)
    return embed_with_global(extracted, first, graph, settings)


def verify_spatially(
    extracted: Extracted, first: Ranking, rerank: ml_collections.ConfigDict, seed: int
) -> dict[str, np.ndarray]:
    """Re-ranks the short list by inliers, for each protocol apart.

    Args:
      extracted: features and ground truth.
      first: the ranking whose short list is verified.
      rerank: the `config.rerank` tree.
      seed: of the random draws.

    Returns:
      Rankings int32 [Q, N] by protocol name, and under "all" the one whose short list is not
      cleared of a protocol's junk. Images without features stay last.
    """
    excluded = [
        {name: protocol_sets(entry, name)[1] for name in PROTOCOLS}
        for entry in extracted.data.ground_truth
    ]
    return verification.verify(extracted, first, rerank, seed, excluded).by_protocol


def refine(extracted: Extracted, first: Ranking, rerank: ml_collections.ConfigDict) -> Ranking:
    """Re-ranks the short list of the global search by refined descriptors.

    The similarities are those of the search, and no longer descend.
    """
    images = superglobal.rerank(
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
        first.images,
        rerank.superglobal.short_list,
        rerank.superglobal.neighbours,
        rerank.superglobal.beta,
    )
    # Both rows hold the same images, which may be few of the database
    before, after = (np.argsort(side, axis=1) for side in (first.images, images))
    similarities = np.empty_like(first.similarities)
    sorted_by_image = np.take_along_axis(first.similarities, before, axis=1)
    np.put_along_axis(similarities, after, sorted_by_image, axis=1)
    return Ranking(images, similarities)


def expand(
    extracted: Extracted, first: Ranking, rerank: ml_collections.ConfigDict, global_block: int
) -> Ranking:
    """Searches once more, with queries averaged with the best images of the global search."""
    queries = query_expansion.expand(
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
        first.images,
        rerank.qe.images,
        rerank.qe.alpha,
    )
    return _by_cosine(queries, extracted, first.images.shape[1], global_block)


def diffuse(first: Ranking, graph: SimilarityGraph, rerank: ml_collections.ConfigDict) -> Ranking:
    """Re-ranks the whole database by what reaches it along the graph."""
    settings = diffusion_settings(rerank)
    return Ranking(*diffusion.rerank(first.images, first.similarities, graph, settings))


def embed(first: Ranking, graph: SimilarityGraph, rerank: ml_collections.ConfigDict) -> Ranking:
    """Re-ranks the short list of the local search by similarity embeddings."""
    settings = mds_settings(rerank)
    return first.by_scores(mds.list_scores(first.images, first.similarities, graph, settings))


def embed_with_global(
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph,
    rerank: ml_collections.ConfigDict,
) -> Ranking:
    """As `embed`, with the global descriptors beside the embedding."""
    scores = mds.list_scores(
        first.images,
        first.similarities,
        graph,
        mds_settings(rerank),
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
    )
    return first.by_scores(scores)
