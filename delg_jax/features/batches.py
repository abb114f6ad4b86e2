"""Batching of pyramid levels of many images."""

from collections.abc import Sequence
from typing import NamedTuple

from delg_jax.features import pyramid
from delg_jax.features.pyramid_level import LevelPlan


class Member(NamedTuple):
    """One level of one image.

    Attributes:
      image: number of the image.
      plan: what to extract from the level.
      target: height and width of the level.
    """

    image: int
    plan: LevelPlan
    target: tuple[int, int]


class Batch(NamedTuple):
    """Levels with the same canvas and outputs.

    Attributes:
      shape: height and width of the canvas.
      max_features: maximum number of local features; 0 for none.
      pooled: whether to compute global descriptors.
      members: the levels, of any images and scales.
    """

    shape: tuple[int, int]
    max_features: int
    pooled: bool
    members: list[Member]


def arrange(
    sizes: Sequence[tuple[int, int]], plans: Sequence[LevelPlan], step: int, pixels: int
) -> list[Batch]:
    """Groups all levels of all images into batches of 1, 2, 4, 8, ... levels.

    Powers of two add up to any number of levels, so that no batch is padded and few batch sizes
    are compiled for each canvas.

    Args:
      sizes: height and width of each image.
      plans: levels of every image.
      step: pixels, see `pyramid.canvas_shape`.
      pixels: maximum total of the canvases of a batch; a single larger canvas is a batch of one.

    Returns:
      Batches that contain each level of each image once.
    """
    groups: dict[tuple, list[Member]] = {}
    for plan in plans:
        for image, size in enumerate(sizes):
            target = pyramid.scaled_size(size, plan.scale)
            key = (pyramid.canvas_shape(target, step), plan.max_features, plan.pooled)
            groups.setdefault(key, []).append(Member(image, plan, target))
    batches = []
    for (shape, max_features, pooled), members in groups.items():
        largest = pyramid.power_of_two(pixels // (shape[0] * shape[1]))
        while members:
            length = min(largest, pyramid.power_of_two(len(members)))
            batches.append(Batch(shape, max_features, pooled, members[:length]))
            members = members[length:]
    return batches
