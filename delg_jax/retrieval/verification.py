"""Spatial verification of rankings: the one way in which evaluation and search do it."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import ml_collections
import numpy as np

from delg_jax.features import Extracted, LocalFeatures
from delg_jax.progress import Progress
from delg_jax.rerank import spatial_verification
from delg_jax.retrieval.ranking import Ranked, Ranking
from delg_jax.retrieval.settings import spatial_settings

# Images [E] that the protocols leave out of one query's short list, by the protocol's name
Excluded = Mapping[str, Sequence[int]]


def verify(
    extracted: Extracted,
    first: Ranking,
    rerank: ml_collections.ConfigDict,
    seed: int,
    excluded: Sequence[Excluded] | None = None,
    quiet: bool = False,
) -> Ranked:
    """Re-ranks the short list of each query by inliers.

    Args:
      extracted: features.
      first: the ranking whose short list is verified. Images of a similarity of minus infinity,
        which have no features, are in no short list and stay last.
      rerank: the `config.rerank` tree.
      seed: of the random draws.
      excluded: of each query, what protocols leave out; None where there are none.
      quiet: whether no progress is shown.

    Returns:
      Rankings by protocol, and under "all" the one that leaves nothing out, with similarities of
      the search and inliers.
    """
    queries, columns = first.images.shape
    count = min(rerank.sp.short_list, columns)
    excluded = [{}] * queries if excluded is None else excluded
    count_inliers = inlier_counter(extracted, rerank, seed)
    names = ("all", *(excluded[0] if queries else ()))
    rankings = {name: np.empty_like(first.images) for name in names}
    similarities = np.empty_like(first.similarities)
    inliers = np.empty((queries, count), np.int32)
    for number in _numbers(queries, quiet):
        images, before = first.images[number], first.similarities[number]
        absent = images[before == -np.inf]
        left_out = {"all": absent}
        left_out |= {name: [*out, *absent] for name, out in excluded[number].items()}
        lists = [spatial_verification.short_list(images, out, count) for out in left_out.values()]
        found = count_inliers(number, np.unique(np.concatenate(lists)))
        for name, out in left_out.items():
            places = np.flatnonzero(np.isin(images, out))
            order = spatial_verification.rerank(
                np.arange(columns), before, found[images], places, count, rerank.sp.score
            )
            rankings[name][number] = images[order]
            if name == "all":
                similarities[number], inliers[number] = before[order], found[images[order[:count]]]
    return Ranked(rankings, similarities, inliers)


def _numbers(queries: int, quiet: bool) -> Iterator[int]:
    """The numbers of the queries, with their progress."""
    if quiet:
        yield from range(queries)
        return
    with Progress("spatial verification", queries, "query") as progress:
        for number in range(queries):
            yield number
            progress.advance()


def inlier_counter(
    extracted: Extracted, rerank: ml_collections.ConfigDict, seed: int
) -> Callable[[int, np.ndarray], np.ndarray]:
    """Prepares spatial verification of any query against any database images.

    What a pair draws depends on the seed and the image alone: a query is ranked alike in whatever
    place of a list it stands, and alone.

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
            key,
            settings,
        )
        return inliers

    return count
