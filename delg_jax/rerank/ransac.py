"""RANSAC for many image pairs at a time: hypotheses, their scores, and local optimisation.

M pairs, K matches, H hypotheses. Models are coefficients float [C, M, H], see `transforms`.
"""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from delg_jax.errors import WrongField, require_least
from delg_jax.rerank import transforms
from delg_jax.rerank.transforms import at_match

SCORINGS = ("inliers", "msac")

# A degenerate sample is redrawn at most this often. Where one sample in three is good, 2% of the
# hypotheses stay empty; where all matches lie on a line, the loop ends.
REDRAWS = 10

# Local optimisation refits this many of the best hypotheses of a pair, at most this often; more of
# either did not help.
FINALISTS = 10
REFITS = 4

_MOST_PIXELS = 1e9  # of an inlier threshold, whose square is a float32


@dataclasses.dataclass(frozen=True)
class RansacSettings:
    """How hypotheses are generated and scored.

    Attributes:
      hypotheses: per pair, H.
      inlier_threshold: pixels; the error of an inlier is strictly smaller.
      model: key of `transforms.FAMILIES`.
      scoring: one of `SCORINGS`.
      local_optimization: refit the best hypotheses to their inliers while that improves the score
        (Chum, Matas, Kittler, "Locally optimized RANSAC", DAGM 2003).
      guided: one hypothesis per match, see `guided_models`, instead of random samples. These have
        no rotation and no shear, so local optimisation is always on.
    """

    hypotheses: int = 1000
    inlier_threshold: float = 20.0
    model: str = "affine"
    scoring: str = "inliers"
    local_optimization: bool = False
    guided: bool = False

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "hypotheses")
        if not 0 < self.inlier_threshold <= _MOST_PIXELS:
            raise WrongField(
                "inlier_threshold", self.inlier_threshold, f"must lie in (0, {_MOST_PIXELS:g}]"
            )
        choices = (("model", transforms.FAMILIES), ("scoring", SCORINGS))
        for name, known in choices:
            if getattr(self, name) not in known:
                given = getattr(self, name)
                raise WrongField(name, given, f"must be one of {', '.join(known)}")


class Estimate(NamedTuple):
    """The best hypothesis of each pair.

    Attributes:
      transform: float32 [M, 2, 3], [A | b] with target = A source + b and points as (y, x);
        homographies are [M, 3, 3]; zeros where none was found.
      inliers: int32 [M].
      inlier_mask: bool [M, K].
    """

    transform: jax.Array
    inliers: jax.Array
    inlier_mask: jax.Array


@partial(jax.jit, static_argnames=("settings", "block"))
def estimate(
    source: jax.Array,
    target: jax.Array,
    mask: jax.Array,
    pair_ids: jax.Array,
    key: jax.Array,
    settings: RansacSettings,
    scale_ratios: jax.Array | None = None,
    block: int = 8,
) -> Estimate:
    """Fits a transformation to the matches of each pair by RANSAC (Fischler, Bolles, 1981).

    The first hypothesis with the best score wins. The samples of a pair depend on `key`, its id and
    its matches, not on padding or other pairs. Memory is O(M (hypotheses + K)).

    Args:
      source: float [M, K, 2], points (y, x) in pixels.
      target: float [M, K, 2], the points they are matched with.
      mask: bool [M, K], False where there is no match.
      pair_ids: int [M], seed of each pair.
      key: random key.
      settings: see `RansacSettings`.
      scale_ratios: float [M, K], sizes of target over source features; read if `settings.guided`.
      block: matches scored per pass over the hypotheses; does not change the result.

    Returns:
      The estimates; pairs with no more matches than a sample get 0 inliers.

    Raises:
      ValueError: if guided without scale ratios.
    """
    count = mask.sum(axis=1)
    source, source_centre = _centred(source, mask, count)
    target, target_centre = _centred(target, mask, count)
    points = jnp.concatenate([source, target], axis=2)  # [M, K, 4]
    # With matches first, samples are ranks below `count`, and padding is not scored
    order = jnp.argsort(~mask, axis=1, stable=True)
    points_first = jnp.take_along_axis(points, order[:, :, None], axis=1)
    if settings.guided:
        if scale_ratios is None:
            raise ValueError("`scale_ratios` (=None) must be given for guided hypotheses")
        ratios = jnp.take_along_axis(scale_ratios, order, axis=1)
        models, possible = guided_models(points_first, ratios, count, settings.hypotheses)
    else:
        models, possible = _sampled_models(points_first, count, pair_ids, key, settings)
    scores = score(models, points_first, count, settings.inlier_threshold, settings.scoring, block)
    model = _best(models, jnp.where(possible, scores, 0), points_first, count, settings)
    found = (count >= transforms.FAMILIES[settings.model].least_matches) & possible.any(axis=1)
    error = squared_error(model[:, :, None], jnp.moveaxis(points, 2, 0))
    inlier_mask = (error < settings.inlier_threshold**2) & mask & found[:, None]
    transform = transforms.matrix(model, source_centre, target_centre)
    transform = jnp.where(found[:, None, None], transform, 0.0)
    return Estimate(transform, inlier_mask.sum(axis=1, dtype=jnp.int32), inlier_mask)


def _centred(points: jax.Array, mask: jax.Array, count: jax.Array) -> tuple[jax.Array, jax.Array]:
    """Moves the mean of the matches to the origin, where float32 is finest; padding is zeroed."""
    points = jnp.where(mask[:, :, None], points.astype(jnp.float32), 0.0)
    centre = points.sum(axis=1) / jnp.maximum(count, 1)[:, None]
    return jnp.where(mask[:, :, None], points - centre[:, None, :], 0.0), centre


def _sampled_models(
    points: jax.Array,
    count: jax.Array,
    pair_ids: jax.Array,
    key: jax.Array,
    settings: RansacSettings,
) -> tuple[jax.Array, jax.Array]:
    """Models [C, M, H] through random samples, and bool [M, H], False for degenerate ones."""
    family = transforms.FAMILIES[settings.model]

    def through(ranks: jax.Array) -> tuple[jax.Array, jax.Array]:
        pairs, size, number = ranks.shape
        corners = jnp.take_along_axis(points, ranks.reshape(pairs, -1, 1), axis=1)
        corners = corners.reshape(pairs, size, number, 4)
        return family.through(jnp.moveaxis(corners, (1, 3), (0, 1)))

    keys = jax.vmap(jax.random.fold_in, in_axes=(None, 0))(key, pair_ids)
    ranks = draw_samples(
        keys, count, family.sample, settings.hypotheses, lambda ranks: through(ranks)[1]
    )
    return through(ranks)


def draw_samples(
    keys: jax.Array,
    count: jax.Array,
    size: int,
    samples: int,
    is_good: Callable[[jax.Array], jax.Array],
) -> jax.Array:
    """Draws samples for many pairs and redraws degenerate ones.

    Redraws do not change good samples, so the samples of a pair depend only on its own key and
    matches.

    Args:
      keys: random keys [M].
      count: int [M], number of matches.
      size: matches in a sample.
      samples: per pair, H.
      is_good: from ranks int32 [M, size, H] to bool [M, H].

    Returns:
      int32 [M, size, H], ranks below `count`; degenerate only if all `REDRAWS` were.
    """
    ranks_of = jax.vmap(partial(distinct_ranks, size=size, samples=samples))
    enough = (count >= size)[:, None]

    def needs_redraw(state: tuple[jax.Array, jax.Array, jax.Array]) -> jax.Array:
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
    return jax.lax.while_loop(needs_redraw, redraw, start)[1]


def distinct_ranks(key: jax.Array, count: jax.Array, size: int, samples: int) -> jax.Array:
    """Draws samples of distinct ranks below `count`, uniformly.

    Each rank is drawn among the remaining ones and shifted past those already drawn.

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
    ranks: list[jax.Array] = []
    taken: list[jax.Array] = []  # in ascending order
    for rank in jnp.clip(drawn, 0, jnp.maximum(left - 1, 0)):
        for other in taken:
            rank += rank >= other
        ranks.append(rank)
        taken = _inserted(taken, rank)
    return jnp.stack(ranks)


def _inserted(ascending: list[jax.Array], rank: jax.Array) -> list[jax.Array]:
    """The ranks with one more, in ascending order."""
    result = []
    for other in ascending:
        result.append(jnp.minimum(other, rank))
        rank = jnp.maximum(other, rank)
    return [*result, rank]


def guided_models(
    points: jax.Array, scale_ratios: jax.Array, count: jax.Array, hypotheses: int
) -> tuple[jax.Array, jax.Array]:
    """Models from single matches: a scale and a shift, without rotation (weak geometry).

    Photographs are mostly upright, and the ratio of the sizes of two matched regions is the change
    of scale (Philbin et al., CVPR 2007; Jegou et al., "Weak geometric consistency", ECCV 2008).
    One inlier then gives a good hypothesis; an affine sample needs three.

    Args:
      points: float [M, K, 4], source (y, x) and target (y, x), matches first.
      scale_ratios: float [M, K], size of the target feature over that of the source feature.
      count: int [M], number of matches.
      hypotheses: per pair, at most; from the first matches, those of the strongest features.

    Returns:
      Coefficients [6, M, H] with H = min(wanted, K), and bool [M, H], False beyond the matches.
    """
    points, ratios = points[:, :hypotheses], scale_ratios[:, :hypotheses]
    present = jnp.arange(points.shape[1])[None, :] < count[:, None]
    possible = present & (ratios > 0) & jnp.isfinite(ratios)
    ratios = jnp.where(possible, ratios, 1.0)
    zero = jnp.zeros_like(ratios)
    return at_match(jnp.moveaxis(points, 2, 0), ratios, zero, zero, ratios), possible


def score(
    models: jax.Array,
    points: jax.Array,
    count: jax.Array,
    inlier_threshold: float,
    scoring: str,
    block: int,
) -> jax.Array:
    """Scores every hypothesis, `block` matches per pass.

    A pass is one fused, vectorised loop over all hypotheses; there are as many passes as the pair
    with the most matches needs. No array of hypotheses by matches is allocated.

    Args:
      models: float [C, M, H], coefficients.
      points: float [M, K, 4], matches first.
      count: int [M], number of matches.
      inlier_threshold: pixels.
      scoring: one of `SCORINGS`.
      block: matches per pass; does not change the result.

    Returns:
      Scores [M, H], int32 for `inliers`, else float32; larger is better.
    """
    pairs, size, _ = points.shape
    present = jnp.arange(size)[None, :] < count[:, None]
    target = jnp.where(present[:, :, None], points[:, :, 2:], jnp.inf)  # never an inlier
    points = jnp.concatenate([points[:, :, :2], target], axis=2)
    points = jnp.pad(points, ((0, 0), (0, -size % block), (0, 0)), constant_values=jnp.inf)
    points = points.reshape(pairs, -1, block, 4).transpose(1, 2, 3, 0)  # [passes, block, 4, M]

    def one_pass(step: jax.Array, scores: jax.Array) -> jax.Array:
        for point in jax.lax.dynamic_index_in_dim(points, step, keepdims=False):
            scores += score_of(squared_error(models, point[:, :, None]), inlier_threshold, scoring)
        return scores

    passes = (count.max() + block - 1) // block
    dtype = jnp.int32 if scoring == "inliers" else jnp.float32
    return jax.lax.fori_loop(0, passes, one_pass, jnp.zeros(models.shape[1:], dtype))


def squared_error(model: jax.Array, point: jax.Array) -> jax.Array:
    """Squared distance in pixels between a transformed source point and its target.

    Args:
      model: float [6, ...], coefficients of an affine transformation, or [9, ...] of a homography;
        see `transforms`.
      point: float [4, ...], source (y, x) and target (y, x); broadcast against the model.

    Returns:
      float [...]; infinite where a homography maps beyond the horizon.
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
    """The contribution of a match to the score.

    Args:
      error: squared, in pixels.
      inlier_threshold: pixels; the error of an inlier is strictly smaller.
      scoring: `inliers` counts them (paper); `msac` weights each by 1 - error / threshold^2, one
        minus the truncated quadratic loss (Torr, Zisserman, "MLESAC", CVIU 2000).

    Returns:
      int32 or float32, of the shape of `error`.
    """
    if scoring == "inliers":
        return (error < inlier_threshold**2).astype(jnp.int32)
    return jnp.where(error < inlier_threshold**2, 1.0 - error / inlier_threshold**2, 0.0)


def _best(
    models: jax.Array,
    scores: jax.Array,
    points: jax.Array,
    count: jax.Array,
    settings: RansacSettings,
) -> jax.Array:
    """The first model [C, M] with the highest score, after local optimisation."""
    if settings.local_optimization or settings.guided:
        scores, first = jax.lax.top_k(scores, min(FINALISTS, scores.shape[1]))
        models = jnp.take_along_axis(models, first[None], axis=2)
        if settings.guided and settings.model == "homography":  # fit an affine model first
            refit = transforms.FAMILIES["affine"].refit
            models, scores = _optimized(models, scores, points, count, refit, settings)
            models = transforms.as_homography(models)
        refit = transforms.FAMILIES[settings.model].refit
        models, scores = _optimized(models, scores, points, count, refit, settings)
    best = jnp.argmax(scores, axis=1)
    return jnp.take_along_axis(models, best[None, :, None], axis=2)[:, :, 0]


def _optimized(
    models: jax.Array,
    scores: jax.Array,
    points: jax.Array,
    count: jax.Array,
    refit: Callable[[jax.Array, jax.Array], tuple[jax.Array, jax.Array]],
    settings: RansacSettings,
) -> tuple[jax.Array, jax.Array]:
    """Models [C, M, T] and scores [M, T], refitted to their inliers where the score improves."""
    present = (jnp.arange(points.shape[1])[None, :] < count[:, None])[:, None, :]
    match = jnp.moveaxis(points, 2, 0)[:, :, None, :]  # [4, M, 1, K]

    def one_refit(_: int, state: tuple[jax.Array, jax.Array]) -> tuple[jax.Array, jax.Array]:
        """Refits all models once."""
        models, scores = state
        error = squared_error(models[..., None], match)
        inlier = (error < settings.inlier_threshold**2) & present & (scores > 0)[..., None]
        refitted, good = refit(points, inlier.astype(jnp.float32))
        error = squared_error(refitted[..., None], match)
        found = score_of(error, settings.inlier_threshold, settings.scoring)
        new_scores = jnp.where(present, found, 0).sum(axis=-1)
        better = good & (new_scores > scores)
        return jnp.where(better[None], refitted, models), jnp.where(better, new_scores, scores)

    return jax.lax.fori_loop(0, REFITS, one_refit, (models, scores))
