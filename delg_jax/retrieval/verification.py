"""Spatial verification of rankings, shared by evaluation and search."""

from collections.abc import Callable, Iterator, Mapping, Sequence

import jax
import numpy as np

from delg_jax.data.ground_truth import PROTOCOLS, protocol_sets
from delg_jax.features import Extracted, LocalFeatures
from delg_jax.progress import Progress
from delg_jax.rerank import SpatialSettings, spatial_verification
from delg_jax.retrieval.ranking import Ranked, Ranking

# Images [E] that each protocol ignores in the short list of one query, by name of the protocol
Excluded = Mapping[str, Sequence[int] | np.ndarray]


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
    for query in _with_progress(queries, quiet):
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


def junk(ground_truth: Sequence[Mapping[str, Sequence[int]]]) -> list[Excluded]:
    """The images that the protocols of Revisited Oxford and Paris ignore, for `verify`."""
    return [{name: protocol_sets(entry, name)[1] for name in PROTOCOLS} for entry in ground_truth]


def _with_progress(queries: int, quiet: bool) -> Iterator[int]:
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
