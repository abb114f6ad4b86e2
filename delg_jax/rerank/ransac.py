"""Transformations by random sample consensus, for many image pairs at a time."""

import dataclasses
from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import jax
import jax.numpy as jnp

from delg_jax.errors import WrongField
from delg_jax.rerank import samples, scoring, transforms, weak_geometry

# Local optimisation starts from this many of the best hypotheses of a pair and refits each up to
# this often; more of either was seen to add nothing.
FINALISTS = 10
REFITS = 4
_MOST_PIXELS = 1e9  # of a residual, whose square is a float32


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
      residual: pixels; a match is an inlier if it is transformed to strictly nearer its target.
      model: key of `transforms.FAMILIES`.
      scoring: one of `scoring.SCORINGS`.
      local_optimization: refit the best hypotheses to their inliers for as long as that scores
        better (Chum, Matas, Kittler, "Locally optimized RANSAC", DAGM 2003).
      guided: one hypothesis per match, see `weak_geometry`, instead of random samples; they know
        no rotation nor shear, so that local optimisation is always part of it.
    """

    hypotheses: int = 1000
    residual: float = 20.0
    model: str = "affine"
    scoring: str = "inliers"
    local_optimization: bool = False
    guided: bool = False

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if self.hypotheses < 1:
            raise WrongField("hypotheses", self.hypotheses, "must be at least 1")
        if not 0 < self.residual <= _MOST_PIXELS:
            raise WrongField("residual", self.residual, f"must lie in (0, {_MOST_PIXELS:g}]")
        choices = (("model", transforms.FAMILIES), ("scoring", scoring.SCORINGS))
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
        models, possible = weak_geometry.hypotheses(points_first, ratios, count, options.hypotheses)
    else:
        models, possible = _drawn(points_first, count, pair_ids, key, options)
    scores = scoring.score(models, points_first, count, options.residual, options.scoring, chunk)
    model = _best(models, jnp.where(possible, scores, 0), points_first, count, options)
    found = (count >= transforms.FAMILIES[options.model].least_matches) & possible.any(axis=1)
    error = scoring.squared_error(model[:, :, None], jnp.moveaxis(points, 2, 0))
    inlier_mask = (error < options.residual**2) & mask & found[:, None]
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
    ranks = samples.draw(
        keys, count, family.sample, options.hypotheses, lambda ranks: through(ranks)[1]
    )
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
        error = scoring.squared_error(models[..., None], match)
        inlier = (error < options.residual**2) & present & (scores > 0)[..., None]
        again, good = refit(points, inlier.astype(jnp.float32))
        error = scoring.squared_error(again[..., None], match)
        gains = scoring.score_of(error, options.residual, options.scoring)
        rescored = jnp.where(present, gains, 0).sum(axis=-1)
        better = good & (rescored > scores)
        return jnp.where(better[None], again, models), jnp.where(better, rescored, scores)

    return jax.lax.fori_loop(0, REFITS, one_refit, (models, scores))
