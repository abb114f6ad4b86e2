"""Minimal samples of matches: distinct, not degenerate, and the same for a key everywhere."""

from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp

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
