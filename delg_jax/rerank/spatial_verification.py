"""Spatial verification: re-ranks a short list by the number of matches on one affine view."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.features.local_features import LocalFeatures, strongest
from delg_jax.rerank import ransac
from delg_jax.rerank.matching import match
from delg_jax.search.blocks import padded_rows, starts

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class SpatialSettings:
    """What decides an inlier count; the same names as in the configuration.

    Attributes:
      max_features: strongest features of an image that take part; 0 = all.
      max_distance: L2 distance between unit descriptors that a match stays below.
      ratio: Lowe's ratio; 0 = no ratio test.
      mutual: keep mutual nearest neighbours only.
      hypotheses: affine hypotheses per pair.
      residual: pixels; inliers lie strictly nearer, in the query image.
      min_inliers: fewer count as none.
      pair_block: image pairs verified at a time; bounds memory, never changes a count.
    """

    max_features: int = 1000
    max_distance: float = 1.0
    ratio: float = 0.0
    mutual: bool = False
    hypotheses: int = 1000
    residual: float = 20.0
    min_inliers: int = 4
    pair_block: int = 10

    def __post_init__(self) -> None:
        """Raises a ValueError that names the first wrong field."""
        for name in ("max_distance", "residual"):
            if getattr(self, name) <= 0:
                raise ValueError(f"`{name}` (={getattr(self, name)}) must be positive")
        for name in ("hypotheses", "pair_block"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` (={getattr(self, name)}) must be at least 1")
        if not 0 <= self.ratio <= 1:
            raise ValueError(f"`ratio` (={self.ratio}) must lie in [0, 1]")


def verify(
    query: LocalFeatures,
    candidates: LocalFeatures,
    pair_ids: Array,
    key: jax.Array,
    settings: SpatialSettings,
) -> np.ndarray:
    """Counts the inliers between a query and each candidate (paper, section 4.1).

    As in the official code, each query feature is matched to its nearest neighbour in the
    candidate, and the transformation goes from the candidate to the query.

    Args:
      query: features of one image, [Kq].
      candidates: features of M images, [M, K].
      pair_ids: int [M], name of each pair for the random draws, for example the index of the
        image: the count of a pair then depends on nothing but the pair.
      key: random key of the query.
      settings: see `SpatialSettings`.

    Returns:
      Inliers int32 [M], 0 below `settings.min_inliers`.
    """
    query = jax.tree.map(jnp.asarray, strongest(query, settings.max_features))
    candidates = strongest(candidates, settings.max_features)
    count = len(pair_ids)
    blocks = []
    for start in starts(count, settings.pair_block):
        descriptors, locations, mask, ids = (
            padded_rows(array, start, settings.pair_block)
            for array in (candidates.descriptors, candidates.locations, candidates.mask, pair_ids)
        )
        index, valid = match(
            query.descriptors,
            query.mask,
            descriptors,
            mask,
            max_distance=settings.max_distance,
            ratio=settings.ratio,
            mutual=settings.mutual,
        )
        blocks.append(_inliers(query.locations, locations, index, valid, ids, key, settings))
    if not blocks:
        return np.zeros(0, np.int32)
    inliers = np.concatenate(blocks)[:count]
    return np.where(inliers >= settings.min_inliers, inliers, 0).astype(np.int32)


def _inliers(
    query_locations: jax.Array,
    locations: np.ndarray,
    index: jax.Array,
    valid: jax.Array,
    pair_ids: np.ndarray,
    key: jax.Array,
    settings: SpatialSettings,
) -> jax.Array:
    """Inliers [M] of the matches `index` [M, Kq] from the query to M images."""
    source = jnp.take_along_axis(jnp.asarray(locations), index[:, :, None], axis=1)
    target = jnp.broadcast_to(query_locations[None], source.shape)
    return ransac.estimate(
        source, target, valid, pair_ids, key, settings.hypotheses, settings.residual
    ).inliers


def short_list(ranking: Array, excluded: Array, count: int) -> np.ndarray:
    """The first `count` images of a ranking that are not excluded.

    Args:
      ranking: int [N], images, best first.
      excluded: int [E], images that the protocol ignores.
      count: length of the short list.

    Returns:
      int [M], M <= count.
    """
    ranking = np.asarray(ranking)
    return ranking[~np.isin(ranking, excluded)][:count]


def rerank(
    ranking: Array, similarities: Array, inliers: Array, excluded: Array, count: int
) -> np.ndarray:
    """Sorts the short list by inliers, then by global similarity (paper, section 4.1).

    The rest keeps its order after the short list. Excluded images go last, in their order: a
    metric that ignores them does not see where they are.

    Args:
      ranking: int [N], images, best first.
      similarities: float [N], global similarity of each image of `ranking`, in its order.
      inliers: int [number of images], by image; those outside the short list are not read.
      excluded: int [E], images that the protocol ignores; they take no place of the short list.
      count: length of the short list.

    Returns:
      The new ranking, int [N].
    """
    ranking, similarities = np.asarray(ranking), np.asarray(similarities)
    ignored = np.isin(ranking, excluded)
    kept, kept_similarities = ranking[~ignored], similarities[~ignored]
    head = kept[:count]
    order = np.lexsort((-kept_similarities[:count], -np.asarray(inliers)[head]))
    return np.concatenate([head[order], kept[count:], ranking[ignored]])
