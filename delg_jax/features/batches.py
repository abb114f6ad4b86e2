"""Which pyramid levels of which images go through the network together."""

from collections.abc import Sequence
from typing import NamedTuple

from delg_jax.features import pyramid
from delg_jax.features.pyramid_level import LevelPlan


class Member(NamedTuple):
    """One level of one image.

    Attributes:
      index: of the image.
      plan: of the level.
      target: rows and columns of the level.
    """

    index: int
    plan: LevelPlan
    target: tuple[int, int]


class Batch(NamedTuple):
    """Levels of one canvas that ask for the same.

    Attributes:
      shape: rows and columns of the canvas.
      count: local features to find; 0 for none.
      pooled: whether global descriptors are asked for.
      members: the levels, of any images and scales.
    """

    shape: tuple[int, int]
    count: int
    pooled: bool
    members: list[Member]


def arrange(
    sizes: Sequence[tuple[int, int]], plans: Sequence[LevelPlan], step: int, pixels: int
) -> list[Batch]:
    """Arranges all levels of all images into batches of 1, 2, 4, 8, ... levels.

    Powers of two add up to any number of levels, so that nothing is padded with filler, and each
    canvas meets only as many batch sizes as the logarithm of the largest.

    Args:
      sizes: rows and columns of each image.
      plans: the levels of every image.
      step: pixels, see `pyramid.canvas_shape`.
      pixels: of the canvases of a batch together, at most, unless one canvas alone has more.

    Returns:
      Batches in which each image meets each plan once.
    """
    groups: dict[tuple, list[Member]] = {}
    for plan in plans:
        for index, size in enumerate(sizes):
            target = pyramid.scaled_size(size, plan.scale)
            key = (pyramid.canvas_shape(target, step), plan.count, plan.pooled)
            groups.setdefault(key, []).append(Member(index, plan, target))
    batches = []
    for (shape, count, pooled), members in groups.items():
        largest = pyramid.power_of_two(pixels // (shape[0] * shape[1]))
        while members:
            size = min(largest, pyramid.power_of_two(len(members)))
            batches.append(Batch(shape, count, pooled, members[:size]))
            members = members[size:]
    return batches
