"""Spatial verification: re-ranks a short list by the number of RANSAC inliers."""

import dataclasses
import functools
from collections.abc import Callable, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec

from delg_jax.errors import WrongField, require_least
from delg_jax.features.local_features import LocalFeatures, strongest
from delg_jax.rerank import ransac
from delg_jax.rerank.ransac import RansacSettings
from delg_jax.search import descriptor_similarity
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.descriptor_similarity import HAMMING, binarize

SCORES = ("inliers", "combined")

# The combined score counts at most this many inliers (recognition on GLDv2, official code)
ENOUGH_INLIERS = 70

Array = jax.Array | np.ndarray


class MatchSettings(NamedTuple):
    """How two images are matched, see `SpatialSettings`."""

    max_distance: float
    ratio: float
    mutual: bool
    one_bit: bool
    hamming: str


@dataclasses.dataclass(frozen=True)
class SpatialSettings:
    """Settings of spatial verification; `config.rerank.sp` has the same names.

    Attributes:
      short_list: first images of a ranking that are verified.
      max_features: strongest features of an image to match; 0 = all.
      max_distance: L2 distance between unit descriptors; that of a match is smaller.
      ratio: Lowe's ratio; 0 = no ratio test.
      mutual: keep mutual nearest neighbours only.
      one_bit: match only the signs of descriptors (DELG*); `max_distance` is then that of vectors
        of +-1 / sqrt(D). Stored packed signs are always matched as signs.
      hamming: how signs are compared, one of `descriptor_similarity.HAMMING`; the result is the
        same.
      hypotheses: RANSAC hypotheses per pair.
      inlier_threshold: pixels in the query image; the error of an inlier is strictly smaller.
      model: affine, similarity or homography.
      scoring: inliers or msac, the score of a hypothesis.
      local_optimization: whether to refit the best hypotheses to their inliers.
      guided: hypotheses from single matches and their scales, not from random samples.
      min_inliers: fewer count as none. Of 1000 random matches between squares of 1000 pixels, the
        best of 1000 affine hypotheses has 8 inliers in the median and never had more than 12 in
        10,000 random pairs (`experiments.benchmarks.ransac_inliers`); the official code asks for 4.
      score: what a short list is sorted by, see `rerank`.
      pair_block: image pairs verified at a time on each device; bounds memory, never changes a
        count.
    """

    short_list: int = 100
    max_features: int = 1000
    max_distance: float = 1.0
    ratio: float = 0.0
    mutual: bool = False
    one_bit: bool = False
    hamming: str = "popcount"
    hypotheses: int = 1000
    inlier_threshold: float = 20.0
    model: str = "affine"
    scoring: str = "inliers"
    local_optimization: bool = False
    guided: bool = False
    min_inliers: int = 15
    score: str = "inliers"
    pair_block: int = 10

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if not 0 < self.max_distance <= 2:
            rule = "must lie in (0, 2], the distances of unit vectors"
            raise WrongField("max_distance", self.max_distance, rule)
        require_least(self, 0, "max_features")
        require_least(self, 1, "short_list", "pair_block")
        if not 0 <= self.ratio <= 1:
            raise WrongField("ratio", self.ratio, "must lie in [0, 1]")
        for name, known in (("hamming", HAMMING), ("score", SCORES)):
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise WrongField(name, given, f"must be one of {', '.join(known)}")
        _ = self.ransac  # raises for a wrong field

    @functools.cached_property
    def matching(self) -> MatchSettings:
        """The fields of matching, which are compiled, as are those of RANSAC, and no others."""
        return MatchSettings(*(getattr(self, name) for name in MatchSettings._fields))

    @functools.cached_property
    def ransac(self) -> RansacSettings:
        """The fields of RANSAC."""
        names = (field.name for field in dataclasses.fields(RansacSettings))
        return RansacSettings(**{name: getattr(self, name) for name in names})


class Verification(NamedTuple):
    """The verified matches of one pair of images.

    Attributes:
      matches: int [L, 2], features of the query and of the candidate.
      inlier_mask: bool [L].
      transform: float32 [2, 3] or [3, 3], from the candidate to the query, points as (y, x); zeros
        if none was found.
    """

    matches: np.ndarray
    inlier_mask: np.ndarray
    transform: np.ndarray


def verify(
    query: LocalFeatures,
    candidates: LocalFeatures,
    pair_ids: Array,
    key: jax.Array,
    settings: SpatialSettings,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    """Counts of `count_inliers`, 0 below `settings.min_inliers`; with the same arguments."""
    inliers = count_inliers(query, candidates, pair_ids, key, settings, devices)
    return np.where(inliers >= settings.min_inliers, inliers, 0).astype(np.int32)


def count_inliers(
    query: LocalFeatures,
    candidates: LocalFeatures,
    pair_ids: Array,
    key: jax.Array,
    settings: SpatialSettings,
    devices: Sequence[jax.Device] | None = None,
) -> np.ndarray:
    """Counts the inliers between a query and each candidate (paper, section 4.1).

    As in the official code, each query feature is matched with its nearest neighbour in the
    candidate, and the transformation maps the candidate to the query.

    Args:
      query: features of one image, [Kq].
      candidates: features of M images, [M, K].
      pair_ids: int [M], seed of each pair, for example the index of the image, so that the count
        of a pair does not depend on the other pairs.
      key: random key of the query.
      settings: `min_inliers` is not applied.
      devices: to split the candidates over; None for all of this process.

    Returns:
      Inliers int32 [M].
    """
    query = jax.device_put(strongest(query, settings.max_features))
    candidates = strongest(candidates, settings.max_features)
    devices = tuple(devices or jax.local_devices())
    estimate = _on_devices(settings.matching, settings.ransac, devices)
    count, block = len(pair_ids), settings.pair_block * len(devices)
    blocks: list[jax.Array] = []
    for start in starts(count, block):
        part, ids = jax.tree.map(
            functools.partial(padded_rows, start=start, size=block), (candidates, pair_ids)
        )
        blocks.append(estimate(query, part, ids, key)[2].inliers)
    if not blocks:
        return np.zeros(0, np.int32)
    return np.concatenate(blocks)[:count].astype(np.int32)


def verify_pair(
    query: LocalFeatures,
    candidate: LocalFeatures,
    key: jax.Array,
    settings: SpatialSettings,
    pair_id: int = 0,
) -> Verification:
    """Matches two images and finds the inliers; the same count as of `count_inliers`.

    Args:
      query: features of one image, [Kq].
      candidate: features of the other, [K].
      key: random key of the query.
      settings: `min_inliers` is not applied.
      pair_id: seed of the pair, as of `count_inliers`.

    Returns:
      The verification.
    """
    query, candidate = (strongest(side, settings.max_features) for side in (query, candidate))
    candidates = jax.tree.map(lambda field: np.asarray(field)[None], candidate)
    one = tuple(jax.local_devices()[:1])
    estimate = _on_devices(settings.matching, settings.ransac, one)
    pair_ids = np.array([pair_id], np.int32)
    index, valid, found = jax.device_get(estimate(query, candidates, pair_ids, key))
    matched = np.flatnonzero(valid[0])
    matches = np.stack([matched, index[0, matched]], axis=1)
    return Verification(matches, found.inlier_mask[0, matched], found.transform[0])


@functools.cache
def _on_devices(
    matching: MatchSettings, ransac_settings: RansacSettings, devices: tuple[jax.Device, ...]
) -> Callable:
    """`_estimate` with the candidates split over devices."""
    every, each = PartitionSpec(), PartitionSpec("pairs")
    sharded = jax.shard_map(
        functools.partial(_estimate, matching=matching, ransac_settings=ransac_settings),
        mesh=Mesh(np.array(devices), ("pairs",)),
        in_specs=(every, each, each, every),
        out_specs=each,
        check_vma=False,  # the number of loops differs between devices
    )
    return jax.jit(sharded)


def _estimate(
    query: LocalFeatures,
    candidates: LocalFeatures,
    pair_ids: jax.Array,
    key: jax.Array,
    matching: MatchSettings,
    ransac_settings: RansacSettings,
) -> tuple[jax.Array, jax.Array, ransac.Estimate]:
    """Neighbours int32 [M, Kq] of the query's features, matches bool [M, Kq], and the estimates."""
    descriptors, dimension = [side.descriptors for side in (query, candidates)], None
    if matching.one_bit and descriptors[0].dtype != jnp.uint8:
        dimension = descriptors[0].shape[-1]
        descriptors = [binarize(side) for side in descriptors]
    index, valid = match(
        descriptors[0],
        query.mask,
        descriptors[1],
        candidates.mask,
        max_distance=matching.max_distance,
        ratio=matching.ratio,
        mutual=matching.mutual,
        hamming=matching.hamming,
        dimension=dimension,
    )
    source = jnp.take_along_axis(candidates.locations, index[:, :, None], axis=1)
    target = jnp.broadcast_to(query.locations[None], source.shape)
    ratios = query.scales[None] / jnp.take_along_axis(candidates.scales, index, axis=1)
    estimate = ransac.estimate(source, target, valid, pair_ids, key, ransac_settings, ratios)
    return index, valid, estimate


@functools.partial(
    jax.jit, static_argnames=("max_distance", "ratio", "mutual", "hamming", "dimension")
)
def match(
    query_descriptors: jax.Array,
    query_mask: jax.Array,
    descriptors: jax.Array,
    mask: jax.Array,
    max_distance: float,
    ratio: float = 0.0,
    mutual: bool = False,
    hamming: str = "popcount",
    dimension: int | None = None,
) -> tuple[jax.Array, jax.Array]:
    """Finds, for each query feature, its nearest neighbour in each of M images.

    As in the official code, several query features may match the same feature of the image. A
    nearest neighbour is a match if its L2 distance is strictly below `max_distance` and it passes
    the enabled tests. Ties go to the lower index. Memory holds [Kq, K] similarities of one image.

    The dtype gives the encoding of the descriptors, see `descriptor_similarity.cosines`.

    Args:
      query_descriptors: float or int8 [Kq, D], or uint8 [Kq, D / 8].
      query_mask: bool [Kq], False on padding.
      descriptors: [M, K, ...], of the same encoding; floats may differ in width.
      mask: bool [M, K].
      max_distance: L2 distance between unit descriptors, in (0, 2].
      ratio: a match only if distance < ratio * distance to the second neighbour (Lowe, IJCV
        2004); 0 = no test. An image of one feature has its second neighbour at infinity.
      mutual: keep a match only if the query feature is also the nearest one of its neighbour.
      hamming: how packed signs are compared, one of `descriptor_similarity.HAMMING`.
      dimension: D of packed signs, if it is not 8 times the number of bytes.

    Returns:
      Index int32 [M, Kq] of the nearest neighbour (0 if the image has no feature), and
      valid bool [M, Kq].

    Raises:
      ValueError: if the encodings differ.
    """
    descriptor_similarity.check_kinds(query_descriptors, descriptors)

    def one_image(image: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Matches the query to one image's descriptors [K, D] and mask [K]."""
        features, present = image
        found = descriptor_similarity.cosines(query_descriptors, features, hamming, dimension)
        found = jnp.where(present[None, :], found, -jnp.inf)
        return _nearest(found, query_mask, max_distance, ratio, mutual)

    # One image at a time: a CPU multiplies matrices faster without a batch axis
    return jax.lax.map(one_image, (descriptors, mask))


def _nearest(
    cosines: jax.Array, query_mask: jax.Array, max_distance: float, ratio: float, mutual: bool
) -> tuple[jax.Array, jax.Array]:
    """Index and validity [Kq] from cosines [Kq, K]; see `match`."""
    index, best = _first_maximum(cosines)
    # |f - g|^2 = 2 - 2 <f, g> for unit vectors
    valid = query_mask & (best > 1.0 - 0.5 * max_distance**2)
    if ratio:
        rest = jnp.where(jnp.arange(cosines.shape[1])[None, :] == index[:, None], -jnp.inf, cosines)
        valid &= _distance(best) < ratio * _distance(rest.max(axis=1))
    if mutual:
        backward, _ = _first_maximum(jnp.where(query_mask[:, None], cosines, -jnp.inf).T)
        valid &= backward[index] == jnp.arange(cosines.shape[0])
    return index, valid


def _first_maximum(values: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Index and value of the first maximum of each row.

    Two plain reductions are vectorised on a CPU; `argmax` is not.
    """
    columns = jnp.arange(values.shape[1], dtype=jnp.int32)
    best = values.max(axis=1)
    index = jnp.where(values == best[:, None], columns[None, :], values.shape[1]).min(axis=1)
    return index, best


def _distance(cosine: jax.Array) -> jax.Array:
    """L2 distance between unit vectors; infinite for a cosine of minus infinity."""
    return jnp.sqrt(jnp.maximum(2.0 - 2.0 * cosine, 0.0))


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
    ranking: Array,
    similarities: Array,
    inliers: Array,
    excluded: Array,
    count: int,
    score: str = "inliers",
) -> np.ndarray:
    """Sorts the short list by its score, then by global similarity (paper, section 4.1).

    The other images follow in their order. Excluded images come last, where metrics ignore them.

    Args:
      ranking: int [N], images, best first.
      similarities: float [N], global similarity of each image of `ranking`, in its order.
      inliers: int [number of images], by image; those outside the short list are not read.
      excluded: int [E], images that the protocol ignores; not part of the short list.
      count: length of the short list.
      score: `inliers`, or `combined`, see `combined_score` (recognition on GLDv2, official code).

    Returns:
      The new ranking, int [N].
    """
    ranking, similarities = np.asarray(ranking), np.asarray(similarities)
    ignored = np.isin(ranking, excluded)
    kept, kept_similarities = ranking[~ignored], similarities[~ignored]
    head = kept[:count]
    first, second = np.asarray(inliers)[head], kept_similarities[:count]
    if score == "combined":
        first = combined_score(first, second)
    order = np.lexsort((-second, -first))
    return np.concatenate([head[order], kept[count:], ranking[ignored]])


def combined_score(inliers: Array, similarities: Array) -> np.ndarray:
    """Global similarity plus min(inliers / `ENOUGH_INLIERS`, 1)."""
    return np.minimum(inliers, ENOUGH_INLIERS) / ENOUGH_INLIERS + np.asarray(similarities)
