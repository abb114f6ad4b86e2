"""The ways to rank a database: global and local search, each with its re-rankings."""

import dataclasses
from collections.abc import Callable

import jax
import ml_collections
import numpy as np

from delg_jax.errors import UserError, require_choice
from delg_jax.evaluation.revisited import PROTOCOLS, protocol_sets
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.features.formats.imported import is_imported
from delg_jax.features.stage import has_global, has_local
from delg_jax.progress import Progress
from delg_jax.rerank import MdsSettings, SpatialSettings, mds, spatial_verification, superglobal
from delg_jax.search import SimilarityGraph, global_search
from delg_jax.search.stage import check as check_search
from delg_jax.search.stage import engine

METHODS = (
    "global",
    "global+sp",
    "global+superglobal",
    "local",
    "local+sp",
    "local+mds",
    "local+mds+global",
)


def check(subject: str, method: str, config: ml_collections.ConfigDict) -> None:
    """Finds mistakes before hours of extraction do.

    Args:
      subject: the field or flag that names the method.
      method: its value.
      config: the whole tree.

    Raises:
      UserError: if the method does not exist, or the configuration does not suit it.
    """
    spatial_settings(config.rerank)
    mds_settings(config.rerank)
    check_superglobal(config.rerank)
    check_search(config.search)
    require_choice(subject, method, METHODS)
    imports = is_imported(config.extract)
    if "global" in method.split("+") and not has_global(config):
        rule = f"{method} needs global descriptors: set config.extract.imported_global"
        raise UserError(subject, method, rule)
    if method not in ("global", "global+superglobal") and not has_local(config):
        needed = "extract.imported_local" if imports else "model.local_head=True"
        raise UserError(subject, method, f"{method} needs local features: set config.{needed}")


@dataclasses.dataclass(frozen=True)
class Ranking:
    """A ranking of the database for every query.

    Attributes:
      images: int32 [Q, N], best first.
      similarities: float32 [Q, N], in the order of `images`.
    """

    images: np.ndarray
    similarities: np.ndarray


def spatial_settings(rerank: ml_collections.ConfigDict) -> SpatialSettings:
    """`config.rerank.sp` without its short list; raises a UserError for a wrong value."""
    if rerank.sp.short_list < 1:
        raise UserError("config.rerank.sp.short_list", rerank.sp.short_list, "must be at least 1")
    fields = {name: value for name, value in rerank.sp.items() if name != "short_list"}
    try:
        return SpatialSettings(**fields)
    except ValueError as error:
        raise UserError("config.rerank.sp", fields, str(error)) from error


def mds_settings(rerank: ml_collections.ConfigDict) -> MdsSettings:
    """`config.rerank.mds`; raises a UserError for a wrong value."""
    try:
        return MdsSettings(**rerank.mds)
    except ValueError as error:
        raise UserError("config.rerank.mds", dict(rerank.mds), str(error)) from error


def check_superglobal(rerank: ml_collections.ConfigDict) -> None:
    """Raises a UserError for a wrong value in `config.rerank.superglobal`."""
    for name, least in (("short_list", 1), ("neighbours", 1), ("beta", 0)):
        value = rerank.superglobal[name]
        if value < least:
            rule = f"must be at least {least}"
            raise UserError(f"config.rerank.superglobal.{name}", value, rule)


def rank_globally(extracted: Extracted, search: ml_collections.ConfigDict) -> Ranking:
    """Ranks by the cosine of global descriptors."""
    similarities, images = global_search.search(
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
        len(extracted.database),
        search.global_block,
    )
    return Ranking(images, similarities)


def rank_locally(extracted: Extracted, search: ml_collections.ConfigDict) -> Ranking:
    """Ranks by the local similarity, exactly; ties go to the lower index."""
    queries = extracted.queries.local_features(search.max_features)
    database = extracted.database.local_features(search.max_features)
    similarities = engine(database, search)(queries.descriptors, queries.mask)
    images = np.argsort(-similarities, axis=1, kind="stable").astype(np.int32)
    return Ranking(images, np.take_along_axis(similarities, images, axis=1))


def search(method: str, extracted: Extracted, settings: ml_collections.ConfigDict) -> Ranking:
    """The search that a method begins with, global or local; `settings` is `config.search`."""
    rank = rank_globally if method.startswith("global") else rank_locally
    return rank(extracted, settings)


def rerank(
    method: str,
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph | None,
    settings: ml_collections.ConfigDict,
) -> np.ndarray:
    """What a method makes of its search, unless it verifies spatially.

    Args:
      method: one of `METHODS` that does not end with `+sp`.
      extracted: features.
      first: result of `search`.
      graph: similarities among the database images; only methods with `mds` need it.
      settings: the `config.rerank` tree.

    Returns:
      Rankings int32 [Q, N].
    """
    if method in ("global", "local"):
        return first.images
    if method == "global+superglobal":
        return refine(extracted, first, settings)
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
      Rankings int32 [Q, N] by protocol name, and under "all" the one that leaves nothing out: its
      short list is not cleared of a protocol's junk.
    """
    count = rerank.sp.short_list
    count_inliers = inlier_counter(extracted, rerank, seed)
    rankings = {name: np.empty_like(first.images) for name in ("all", *PROTOCOLS)}
    with Progress("spatial verification", len(first.images), "query") as progress:
        for number, entry in enumerate(extracted.data.ground_truth):
            images, similarities = first.images[number], first.similarities[number]
            ignored = {name: protocol_sets(entry, name)[1] for name in PROTOCOLS} | {"all": []}
            lists = [
                spatial_verification.short_list(images, out, count) for out in ignored.values()
            ]
            inliers = count_inliers(number, np.unique(np.concatenate(lists)))
            for name, excluded in ignored.items():
                rankings[name][number] = spatial_verification.rerank(
                    images, similarities, inliers, excluded, count, rerank.sp.score
                )
            progress.advance()
    return rankings


def inlier_counter(
    extracted: Extracted, rerank: ml_collections.ConfigDict, seed: int
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Prepares spatial verification of any query against any database images.

    Args:
      extracted: features of queries and database.
      rerank: the `config.rerank` tree.
      seed: of the random draws.

    Returns:
      A function from the number of a query and candidates int [M] to inliers int32 [N], 0 for
      images that are no candidates.
    """
    settings = spatial_settings(rerank)
    queries = extracted.queries.local_features(settings.max_features)
    database = extracted.database.local_features(settings.max_features)
    key = jax.random.key(seed)

    def count(number: int, candidates: np.ndarray) -> np.ndarray:
        """Inliers of one query."""
        inliers = np.zeros(len(extracted.database), np.int32)
        inliers[candidates] = spatial_verification.verify(
            LocalFeatures(*(field[number] for field in queries)),
            LocalFeatures(*(field[candidates] for field in database)),
            candidates,
            jax.random.fold_in(key, number),
            settings,
        )
        return inliers

    return count


def refine(extracted: Extracted, first: Ranking, rerank: ml_collections.ConfigDict) -> np.ndarray:
    """Re-ranks the short list of the global search by refined descriptors, int32 [Q, N]."""
    return superglobal.rerank(
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
        first.images,
        rerank.superglobal.short_list,
        rerank.superglobal.neighbours,
        rerank.superglobal.beta,
    )


def embed(first: Ranking, graph: SimilarityGraph, rerank: ml_collections.ConfigDict) -> np.ndarray:
    """Re-ranks the short list of the local search by similarity embeddings, int32 [Q, N]."""
    return mds.rerank(first.images, first.similarities, graph, mds_settings(rerank))


def embed_with_global(
    extracted: Extracted,
    first: Ranking,
    graph: SimilarityGraph,
    rerank: ml_collections.ConfigDict,
) -> np.ndarray:
    """As `embed`, with the global descriptors beside the embedding, int32 [Q, N]."""
    return mds.rerank(
        first.images,
        first.similarities,
        graph,
        mds_settings(rerank),
        extracted.queries.global_descriptors(),
        extracted.database.global_descriptors(),
    )
