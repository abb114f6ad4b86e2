"""The methods: global and local search, each with its re-rankings."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import jax
import ml_collections
import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, protocol_sets
from delg_jax.errors import UserError, require_choice
from delg_jax.features import Extracted, FeatureStore, LocalFeatures
from delg_jax.features.experiment import has_global, has_local
from delg_jax.features.formats.imported import is_imported
from delg_jax.progress import Progress
from delg_jax.rerank import (
    SpatialSettings,
    diffusion,
    mds,
    query_expansion,
    spatial_verification,
    superglobal,
)
from delg_jax.retrieval.ranking import Ranked, Ranking, by_similarity, require_features
from delg_jax.retrieval.settings import RerankSettings, refuse_contradictions
from delg_jax.search import SimilarityGraph, global_search, kernels
from delg_jax.search.engine_choice import SearchSettings, check_packed, engine
from delg_jax.search.engines import LocalSearch
from delg_jax.search.graph import PairGraph
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
# Images [E] that each protocol ignores in the short list of one query, by name of the protocol
Excluded = Mapping[str, Sequence[int] | np.ndarray]


def check(subject: str, method: str, config: ml_collections.ConfigDict) -> None:
    """Checks a method before hours of extraction.

    Args:
      subject: the field or flag that names the method.
      method: its value.
      config: the whole tree.

    Raises:
      UserError: if the method does not exist, or the configuration does not fit it.
    """
    RerankSettings.of(config.rerank)
    SearchSettings.of(config.search)
    check_packed(config)
    require_choice(subject, method, METHODS)
    refuse_contradictions(method, config)
    imports = is_imported(config.extract)
    if "global" in method.split("+") and not has_global(config):
        rule = f"{method} needs global descriptors: set config.extract.imported_global"
        raise UserError(subject, method, rule)
    if method not in _WITHOUT_LOCAL and not has_local(config):
        needed = "extract.imported_local" if imports else "model.local_head=True"
        raise UserError(subject, method, f"{method} needs local features: set config.{needed}")


def graph_name(method: str, settings: mds.MdsSettings) -> str:
    """The similarities between database images by which a method re-ranks.

    Args:
      method: one of `METHODS`.
      settings: `graph` is read, if the method embeds.

    Returns:
      `local` or `global`, a stored graph of `index.build_index`; `pairs`, an `index.pair_graph`;
      or "" for none.
    """
    if "mds" in method and settings.graph == "on_the_fly":
        return "pairs"
    return method.split("+")[0] if "mds" in method or "diffusion" in method else ""


def rank_globally(
    extracted: Extracted, block: int, depth: int = 0, queries: np.ndarray | None = None
) -> Ranking:
    """Ranks by the cosine of global descriptors; ties go to the lower index.

    Args:
      extracted: features.
      block: database images that are compared at a time.
      depth: images kept of each ranking; 0 for all.
      queries: float32 [Q, D], other descriptors of the queries than the extracted ones.

    Returns:
      The ranking.
    """
    database = _global_descriptors(extracted.database)
    present = extracted.database.present("global")
    queries = _global_descriptors(extracted.queries) if queries is None else queries
    depth = depth or len(extracted.database)
    similarities, images = global_search.search(queries, database, depth, block, present)
    return Ranking(images, similarities)


def _global_descriptors(features: FeatureStore) -> np.ndarray:
    """Float32 [N, D]; a large store reads rows as they are used, as a memory-mapped array does."""
    rows: Any = features.global_descriptors()
    return rows


def open_locally(
    extracted: Extracted, search: SearchSettings, place: Place | None = None
) -> LocalSearch:
    """Opens the local search over the database; `place` as in `search`."""
    database = extracted.database.local_features(search.max_features, search.packed)
    kernels.warn_if_unselective(database, search.kernel)
    return engine(database, search, place)


def rank_locally(
    extracted: Extracted,
    search: SearchSettings,
    place: Place | None = None,
    opened: LocalSearch | None = None,
) -> Ranking:
    """Ranks by local similarity; ties go to the lower index. Arguments as in `search`."""
    opened = opened or open_locally(extracted, search, place)
    queries = extracted.queries.local_features(search.max_features, search.packed)
    present = extracted.database.present("local")
    if search.candidates:
        listed = search.candidates + search.estimated
        similarities, images = opened.top(queries.descriptors, queries.mask, listed)
        similarities = np.where(present[images], similarities, np.float32(-np.inf))
        return Ranking(images, similarities).by_scores(similarities)
    return by_similarity(opened(queries.descriptors, queries.mask), present)


def search(
    method: str,
    extracted: Extracted,
    settings: SearchSettings,
    place: Place | None = None,
    depth: int = 0,
    opened: LocalSearch | None = None,
) -> Ranking:
    """Runs the search that a method starts with.

    Args:
      method: one of `METHODS`.
      extracted: features.
      settings: of the search.
      place: where an approximate engine keeps its index, see `index_place`; None to keep none.
      depth: images kept of each ranking; 0 for all.
      opened: result of `open_locally`, to reuse it.

    Returns:
      The ranking by global or local similarity.

    Raises:
      UserError: if no image of the database, or no query, has such features.
    """
    kind = method.split("+")[0]
    require_features(extracted, kind)
    if kind == "global":
        return rank_globally(extracted, settings.global_block, depth)
    ranking = rank_locally(extracted, settings, place, opened)
    return ranking.first(depth) if depth else ranking


def rerank(
    method: str,
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph | PairGraph | None,
    settings: RerankSettings,
    global_block: int = 65_536,
) -> Ranking:
    """Runs the re-ranking that follows the search, except spatial verification, which is `verify`.

    Args:
      method: one of `METHODS` that does not end with `+sp`.
      extracted: features.
      first: result of `search`.
      graph: similarities between database images that `graph_name` names; None for "".
      settings: of all re-rankings.
      global_block: database images that query expansion compares at a time.

    Returns:
      The ranking. Images without features are in no short list and come last.
    """
    if method in ("global", "local"):
        return first
    compared = first.compared()
    if method == "global+superglobal":
        ranking = refine(extracted, compared, settings.superglobal)
    elif method == "global+qe":
        ranking = expand(extracted, compared, settings.qe, global_block)
    else:
        assert graph is not None, method
        if method.endswith("+diffusion"):
            assert isinstance(graph, SimilarityGraph), method
            ranking = diffuse(compared, graph, settings.diffusion)
        else:
            ranking = embed(extracted, compared, graph, settings.mds, "global" in method)
    return ranking.followed_by(first)


def refine(
    extracted: Extracted, first: Ranking, settings: superglobal.SuperGlobalSettings
) -> Ranking:
    """Re-ranks the short list of the global search by SuperGlobal.

    Every image keeps its similarity of the search, so that these no longer descend.
    """
    images = superglobal.rerank(
        _global_descriptors(extracted.queries),
        _global_descriptors(extracted.database),
        first.images,
        settings.short_list,
        settings.neighbours,
        settings.beta,
    )
    # Both rows hold the same images, which may be a few of the database
    before, after = (np.argsort(ranks, axis=1) for ranks in (first.images, images))
    similarities = np.empty_like(first.similarities)
    sorted_by_image = np.take_along_axis(first.similarities, before, axis=1)
    np.put_along_axis(similarities, after, sorted_by_image, axis=1)
    return Ranking(images, similarities)


def expand(
    extracted: Extracted,
    first: Ranking,
    settings: query_expansion.ExpansionSettings,
    global_block: int,
) -> Ranking:
    """Searches again with queries averaged with the best images of the global search."""
    queries = query_expansion.expand(
        _global_descriptors(extracted.queries),
        _global_descriptors(extracted.database),
        first.images,
        settings.images,
        settings.alpha,
    )
    return rank_globally(extracted, global_block, first.images.shape[1], queries)


def diffuse(
    first: Ranking, graph: SimilarityGraph, settings: diffusion.DiffusionSettings
) -> Ranking:
    """Re-ranks the whole database by diffusion on the similarity graph."""
    return Ranking(*diffusion.rerank(first.images, first.similarities, graph, settings))


def embed(
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph | PairGraph,
    settings: mds.MdsSettings,
    with_global: bool = False,
) -> Ranking:
    """Re-ranks the short list of the local search by MDS, with or without global descriptors."""
    sides = (extracted.queries, extracted.database) if with_global else ()
    scores = mds.list_scores(
        first.images,
        first.similarities,
        graph,
        settings,
        *map(_global_descriptors, sides),
    )
    return first.by_scores(scores)


def verify(
    extracted: Extracted,
    first: Ranking,
    settings: SpatialSettings,
    seed: int,
    excluded: Sequence[Excluded] | None = None,
    quiet: bool = False,
) -> Ranked:
    """Re-ranks the short list of each query by inliers.

    Args:
      extracted: features.
      first: the ranking whose short list is verified. Images with similarity minus infinity,
        which have no features, are in no short list and stay last.
      settings: of spatial verification.
      seed: of the random draws.
      excluded: what each protocol ignores, by query, see `junk`; None without protocols.
      quiet: whether to show no progress.

    Returns:
      Rankings by protocol, and under "all" the one that ignores nothing, with its similarities of
      the search and inliers.
    """
    queries, columns = first.images.shape
    count = min(settings.short_list, columns)
    excluded = [{}] * queries if excluded is None else excluded
    count_inliers = inlier_counter(extracted, settings, seed)
    names = ("all", *(excluded[0] if queries else ()))
    rankings = {name: np.empty_like(first.images) for name in names}
    similarities = np.empty_like(first.similarities)
    inliers = np.empty((queries, count), np.int32)
    for query in _queries_with_progress(queries, quiet):
        images, before = first.images[query], first.similarities[query]
        absent = images[before == -np.inf]
        ignored = {"all": absent}
        ignored |= {name: [*out, *absent] for name, out in excluded[query].items()}
        lists = [spatial_verification.short_list(images, out, count) for out in ignored.values()]
        found = count_inliers(query, np.unique(np.concatenate(lists)))
        for name, out in ignored.items():
            places = np.flatnonzero(np.isin(images, out))
            order = spatial_verification.rerank(
                np.arange(columns), before, found[images], places, count, settings.score
            )
            rankings[name][query] = images[order]
            if name == "all":
                similarities[query], inliers[query] = before[order], found[images[order[:count]]]
    return Ranked(rankings, similarities, inliers)


def junk_by_protocol(ground_truth: Sequence[Mapping[str, Sequence[int]]]) -> list[Excluded]:
    """The images that the protocols of Revisited Oxford and Paris ignore, for `verify`."""
    return [{name: protocol_sets(entry, name)[1] for name in PROTOCOLS} for entry in ground_truth]


def _queries_with_progress(queries: int, quiet: bool) -> Iterator[int]:
    """Indices of the queries."""
    if quiet:
        yield from range(queries)
        return
    with Progress("spatial verification", queries, "query") as progress:
        for query in range(queries):
            yield query
            progress.advance()


def inlier_counter(
    extracted: Extracted, settings: SpatialSettings, seed: int
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Prepares spatial verification of any query against any database images.

    The random draws of a pair depend only on the seed and the database image, so that the ranking
    of a query does not depend on the other queries.

    Args:
      extracted: features of queries and database.
      settings: of spatial verification.
      seed: of the random draws.

    Returns:
      A function from the index of a query and candidates int [M] to inliers int32 [N], 0 for
      images that are not candidates.
    """
    queries = extracted.queries.local_features(settings.max_features)
    database = extracted.database.local_features(settings.max_features)
    key = jax.random.key(seed)

    def count(query: int, candidates: np.ndarray) -> np.ndarray:
        """Inliers of one query."""
        inliers = np.zeros(len(extracted.database), np.int32)
        inliers[candidates] = spatial_verification.verify(
            LocalFeatures(*(field[query] for field in queries)),
            LocalFeatures(*(field[candidates] for field in database)),
            candidates,
            key,
            settings,
        )
        return inliers

    return count
