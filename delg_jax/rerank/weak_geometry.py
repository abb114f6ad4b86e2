"""Hypotheses from single matches, by what local features know of their place and size."""

import jax
import jax.numpy as jnp

from delg_jax.rerank.transforms import at_match


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
