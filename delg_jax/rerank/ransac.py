"""Transformations by random sample consensus, for many image pairs at a time."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from delg_jax.errors import WrongField
from delg_jax.rerank import transforms
from delg_jax.rerank.transforms import at_match

# A degenerate sample is drawn again this often at most: where only one sample in three is good,
# two hypotheses in a hundred still stay empty; where all matches lie on a line, the draws end.
REDRAWS = 10


def distinct_ranks(key: jax.Array, count: jax.Array, size: int, samples: int) -> jax.Array:
    """Draws samples of distinct ranks below `count`, uniformly.

    Each rank is drawn among those left and then moved past the ones taken before it.

    Args:
      key: random key.
      count: int [], number of matches.
      size: ranks in a sample.
      samples: how many.

    Returns:
      int32 [size, samples]; not distinct if `count` < `size`.
    """
    left = count - jnp.arange(size)[:, None]
    drawn = jnp.floor(jax.random.uniform(key, (size, samples)) * left).astype(jnp.int32)
    ranks, taken = [], []  # `taken` is in ascending order
    for rank in jnp.clip(drawn, 0, jnp.maximum(left - 1, 0)):
        for other in taken:
            rank += rank >= other
        ranks.append(rank)
        taken = _inserted(taken, rank)
    return jnp.stack(ranks)


def _inserted(ascending: list[jax.Array], rank: jax.Array) -> list[jax.Array]:
    result = []
    for other in ascending:
        result.append(jnp.minimum(other, rank))
        rank = jnp.maximum(other, rank)
    return [*result, rank]


def draw(
    keys: jax.Array,
    count: jax.Array,
    size: int,
    samples: int,
    is_good: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Draws samples for many pairs, and again those that are degenerate.

    A good sample is never touched by the redraws of others, so that what a pair gets depends on
    its own key and matches alone.

    Args:
      keys: random keys [M].
      count: int [M], number of matches.
      size: matches in a sample.
      samples: how many, H.
      is_good: from ranks int32 [M, size, H] to bool [M, H].

    Returns:
      int32 [M, size, H], ranks below `count`; degenerate only where `REDRAWS` were too.
    """
    ranks_of = jax.vmap(partial(distinct_ranks, size=size, samples=samples))
    enough = (count >= size)[:, None]

    def is_wanting(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
        attempt, _, good = state
        return (attempt < REDRAWS) & (~good & enough).any()

    def redraw(
        state: tuple[jax.Array, jax.Array, jax.Array],
    ) -> tuple[jax.Array, jax.Array, jax.Array]:
        attempt, ranks, good = state
        again = jax.vmap(jax.random.fold_in, in_axes=(0, None))(keys, attempt)
        ranks = jnp.where(good[:, None, :], ranks, ranks_of(again, count))
        return attempt + 1, ranks, is_good(ranks)

    ranks = ranks_of(keys, count)
    start = (jnp.zeros((), jnp.int32), ranks, is_good(ranks))
    return jax.lax.while_loop(is_wanting, redraw, start)[1]


def hypotheses(
    points: jax.Array, scale_ratios: jax.Array, count: jax.Array, wanted: int
) -> tuple[jax.Array, jax.Array]:
    """Upright views through one match each: a change of scale and a shift.

    Photographs are mostly upright, and the ratio of the sizes of two matched regions is the change
    of scale (Philbin et al., CVPR 2007; Jegou et al., "Weak geometric consistency", ECCV 2008).
    One inlier then makes a good hypothesis, where an affine sample needs three.

    Args:
      points: float [M, K, 4], source (y, x) and target (y, x), matches first.
      scale_ratios: float [M, K], size of the target feature over that of the source feature.
      count: int [M], number of matches.
      wanted: hypotheses per pair; the first matches make them, which are of the strongest features.

    Returns:
      Coefficients [6, M, H] with H = min(wanted, K), and bool [M, H], False beyond the matches.
    """
    points, ratios = points[:, :wanted], scale_ratios[:, :wanted]
    present = jnp.arange(points.shape[1])[None, :] < count[:, None]
    possible = present & (ratios > 0) & jnp.isfinite(ratios)
    ratios = jnp.where(possible, ratios, 1.0)
    zero = jnp.zeros_like(ratios)
    return at_match(jnp.moveaxis(points, 2, 0), ratios, zero, zero, ratios), possible


SCORINGS = ("inliers", "msac")


def squared_error(model: jax.Array, point: jax.Array) -> jax.Array:
    """Squared distance in pixels between a transformed source point and its target.

    Args:
      model: float [6, ...], coefficients of an affine transformation, or [9, ...] of a homography;
        see `transforms`.
      point: float [4, ...], source (y, x) and target (y, x); broadcast against the model.

    Returns:
      float [...]; infinite where a homography maps to behind the horizon.
    """
    y, x, target_y, target_x = point
    if len(model) == 6:
        yy, yx, xy, xx, b_y, b_x = model
        error_y = yy * y + yx * x + (b_y - target_y)
        error_x = xy * y + xx * x + (b_x - target_x)
        return error_y**2 + error_x**2
    yy, yx, b_y, xy, xx, b_x, wy, wx, one = model
    depth = wy * y + wx * x + one
    inverse = 1.0 / jnp.where(depth > 0, depth, 1.0)
    error_y = (yy * y + yx * x + b_y) * inverse - target_y
    error_x = (xy * y + xx * x + b_x) * inverse - target_x
    return jnp.where(depth > 0, error_y**2 + error_x**2, jnp.inf)


def score_of(error: jax.Array, inlier_threshold: float, scoring: str) -> jax.Array:
    """What a match adds to a score.

    Args:
      error: squared, in pixels.
      inlier_threshold: pixels; an inlier lies strictly nearer.
      scoring: `inliers` counts them (paper); `msac` weighs each by 1 - error / threshold^2, the
        truncated quadratic loss of Torr and Zisserman ("MLESAC", CVIU 2000) turned around.

    Returns:
      int32 or float32, of the shape of `error`.
    """
    if scoring == "inliers":
        return (error < inlier_threshold**2).astype(jnp.int32)
    return jnp.where(error < inlier_threshold**2, 1.0 - error / inlier_threshold**2, 0.0)


def score(
    models: jax.Array,
    points: jax.Array,
    count: jax.Array,
    inlier_threshold: float,
    scoring: str,
    chunk: int,
) -> jax.Array:
    """Scores every hypothesis, `chunk` matches per pass.

    A pass is one fused, vectorised loop over all hypotheses; the passes end with the last match
    of the pair that has most. No array of hypotheses by matches is ever made.

    Args:
      models: float [C, M, H], coefficients.
      points: float [M, K, 4], matches first.
      count: int [M], number of matches.
      inlier_threshold: pixels.
      scoring: one of `SCORINGS`.
      chunk: matches per pass; any value gives the same result.

    Returns:
      Scores [M, H], int32 for `inliers`, else float32; larger is better.
    """
    pairs, size, _ = points.shape
    present = jnp.arange(size)[None, :] < count[:, None]
    target = jnp.where(present[:, :, None], points[:, :, 2:], jnp.inf)  # never an inlier
    points = jnp.concatenate([points[:, :, :2], target], axis=2)
    points = jnp.pad(points, ((0, 0), (0, -size % chunk), (0, 0)), constant_values=jnp.inf)
    points = points.reshape(pairs, -1, chunk, 4).transpose(1, 2, 3, 0)  # [passes, chunk, 4, M]

    def one_pass(step: jax.Array, scores: jax.Array) -> jax.Array:
        for point in jax.lax.dynamic_index_in_dim(points, step, keepdims=False):
            scores += score_of(squared_error(models, point[:, :, None]), inlier_threshold, scoring)
        return scores

    passes = (count.max() + chunk - 1) // chunk
    dtype = jnp.int32 if scoring == "inliers" else jnp.float32
    return jax.lax.fori_loop(0, passes, one_pass, jnp.zeros(models.shape[1:], dtype))


# Local optimisation starts from this many of the best hypotheses of a pair and refits each up to
# this often; more of either was seen to add nothing.
FINALISTS = 10
REFITS = 4
_MOST_PIXELS = 1e9  # of a inlier_threshold, whose square is a float32


class Estimate(NamedTuple):
    """The best hypothesis of each pair.

    Attributes:
      transform: float32 [M, 2, 3], [A | b] with target = A source + b and points as (y, x), or of
        homographies [M, 3, 3]; zeros where nothing was found.
      inliers: int32 [M].
      inlier_mask: bool [M, K].
    """

    transform: jax.Array
    inliers: jax.Array
    inlier_mask: jax.Array


@dataclasses.dataclass(frozen=True)
class Options:
    """How hypotheses are made and judged.

    Attributes:
      hypotheses: drawn per pair, H.
      inlier_threshold: pixels; an inlier is transformed to strictly nearer its target.
      model: key of `transforms.FAMILIES`.
      scoring: one of `scoring.SCORINGS`.
      local_optimization: refit the best hypotheses to their inliers for as long as that scores
        better (Chum, Matas, Kittler, "Locally optimized RANSAC", DAGM 2003).
      guided: one hypothesis per match, see `weak_geometry`, instead of random samples; they know
        no rotation nor shear, so that local optimisation is always part of it.
    """

    hypotheses: int = 1000
    inlier_threshold: float = 20.0
    model: str = "affine"
    scoring: str = "inliers"
    local_optimization: bool = False
    guided: bool = False

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if self.hypotheses < 1:
            raise WrongField("hypotheses", self.hypotheses, "must be at least 1")
        if not 0 < self.inlier_threshold <= _MOST_PIXELS:
            raise WrongField(
                "inlier_threshold", self.inlier_threshold, f"must lie in (0, {_MOST_PIXELS:g}]"
            )
        choices = (("model", transforms.FAMILIES), ("scoring", SCORINGS))
        for name, known in choices:
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise WrongField(name, given, f"must be one of {', '.join(known)}")


@partial(jax.jit, static_argnames=("options", "chunk"))
def estimate(
    source: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    pair_ids: jax.Array,
    key: jax.Array,
    options: Options,
    scale_ratios: jax.Array | None = None,
    chunk: int = 8,
) -> Estimate:
    """Fits a transformation to the matches of each pair by RANSAC (Fischler, Bolles, 1981).

    The first hypothesis with the best score wins. What a pair draws depends on `key`, its id and
    its matches, not on padding nor on the other pairs. Memory is O(M (hypotheses + K)).

    Args:
      source: float [M, K, 2], points (y, x) in pixels.
      target: float [M, K, 2], the points they are matched with.
      mask: bool [M, K], False where there is no match.
      pair_ids: int [M], name of each pair for the random draws.
      key: random key.
      options: see `Options`.
      scale_ratios: float [M, K], sizes of target over source features; for `options.guided`.
      chunk: matches scored in one pass over the hypotheses; any value gives the same result.

    Returns:
      The estimates; pairs with no more matches than a sample has get 0 inliers.

    Raises:
      ValueError: if guided without scale ratios.
    """
    if options.guided and scale_ratios is None:
        raise ValueError("`scale_ratios` (=None) must be given for guided hypotheses")
    count = mask.sum(axis=1)
    source, source_centre = _centred(source, mask, count)
    target, target_centre = _centred(target, mask, count)
    points = jnp.concatenate([source, target], axis=2)  # [M, K, 4]
    # Matches first: ranks below `count` are then samples, and padding need not be scored
    order = jnp.argsort(~mask, axis=1, stable=True)
    points_first = jnp.take_along_axis(points, order[:, :, None], axis=1)
    if options.guided:
        ratios = jnp.take_along_axis(scale_ratios, order, axis=1)
        models, possible = hypotheses(points_first, ratios, count, options.hypotheses)
    else:
        models, possible = _drawn(points_first, count, pair_ids, key, options)
    scores = score(models, points_first, count, options.inlier_threshold, options.scoring, chunk)
    model = _best(models, jnp.where(possible, scores, 0), points_first, count, options)
    found = (count >= transforms.FAMILIES[options.model].least_matches) & possible.any(axis=1)
    error = squared_error(model[:, :, None], jnp.moveaxis(points, 2, 0))
    inlier_mask = (error < options.inlier_threshold**2) & mask & found[:, None]
    transform = transforms.matrix(model, source_centre, target_centre)
    transform = jnp.where(found[:, None, None], transform, 0.0)
    return Estimate(transform, inlier_mask.sum(axis=1, dtype=jnp.int32), inlier_mask)


def _centred(points: jax.Array, mask: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the mean of the matches to the origin, where float32 is finest; padding is zeroed."""
    points = jnp.where(mask[:, :, None], points.astype(jnp.float32), 0.0)
    centre = points.sum(axis=1) / jnp.maximum(count, 1)[:, None]
    return jnp.where(mask[:, :, None], points - centre[:, None, :], 0.0), centre


def _drawn(
    points: jax.Array, count: jax.Array, pair_ids: jax.Array, key: jax.Array, options: Options
) -> tuple[jax.Array, jax.Array]:
    """Models [C, M, H] through random samples, and bool [M, H], False for degenerate ones."""
    family = transforms.FAMILIES[options.model]

    def through(ranks: jax.Array) -> tuple[jax.Array, jax.Array]:
        pairs, size, number = ranks.shape
        corners = jnp.take_along_axis(points, ranks.reshape(pairs, -1, 1), axis=1)
        corners = corners.reshape(pairs, size, number, 4)
        return family.through(jnp.moveaxis(corners, (1, 3), (0, 1)))

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, pair_ids)
    ranks = draw(keys, count, family.sample, options.hypotheses, lambda ranks: through(ranks)[1])
    return through(ranks)


def _best(
    models: jax.Array, scores: jax.Array, points: jax.Array, count: jax.Array, options: Options
) -> jax.Array:
    """The first model [C, M] with the highest score, after local optimisation if it is on."""
    if options.local_optimization or options.guided:
        scores, first = jax.lax.top_k(scores, min(FINALISTS, scores.shape[1]))
        models = jnp.take_along_axis(models, first[None], axis=2)
        if options.guided and options.model == "homography":  # one match is too far from it
            refit = transforms.FAMILIES["affine"].refit
            models, scores = _optimized(models, scores, points, count, refit, options)
            models = transforms.as_homography(models)
        refit = transforms.FAMILIES[options.model].refit
        models, scores = _optimized(models, scores, points, count, refit, options)
    best = jnp.argmax(scores, axis=1)
    return jnp.take_along_axis(models, best[None, :, None], axis=2)[:, :, 0]


def _optimized(
    models: jax.Array,
    scores: jax.Array,
    points: jax.Array,
    count: jax.Array,
    refit: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    options: Options,
) -> tuple[jax.Array, jax.Array]:
    """Models [C, M, T] and scores [M, T] after refits to their own inliers, where these gain."""
    present = (jnp.arange(points.shape[1])[None, :] < count[:, None])[:, None, :]
    match = jnp.moveaxis(points, 2, 0)[:, :, None, :]  # [4, M, 1, K]

    def one_refit(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Refits all models once."""
        models, scores = state
        error = squared_error(models[..., None], match)
        inlier = (error < options.inlier_threshold**2) & present & (scores > 0)[..., None]
        again, good = refit(points, inlier.astype(jnp.float32))
        error = squared_error(again[..., None], match)
        gains = score_of(error, options.inlier_threshold, options.scoring)
        rescored = jnp.where(present, gains, 0).sum(axis=-1)
        better = good & (rescored > scores)
        return jnp.where(better[None], again, models), jnp.where(better, rescored, scores)

    return jax.lax.fori_loop(0, REFITS, one_refit, (models, scores))
