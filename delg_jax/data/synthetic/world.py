"""Which landmarks a world has, and which views of them each split shows.

Landmarks are numbered: first those to train on, then those to evaluate, then look-alikes of the
latter (same families), then unrelated ones (families of their own).
"""

import dataclasses

import numpy as np

from delg_jax.errors import require_choice

SPLITS = ("train", "validation", "index", "query")

# Kinds of the views of a landmark, in turn. For a query, the first index view is easy and the
# third hard, so each query has both in a world of any size.
TRAIN_KINDS = ("mild", "oblique", "tilted", "mild", "close", "far", "query", "hidden")
INDEX_KINDS = (
    "mild", "oblique", "hidden", "mild", "barely", "close", "mild", "far", "tilted", "mild",
)  # fmt: skip
DISTRACTOR_KINDS = ("mild", "close", "oblique", "mild", "far")
STREAMS = ("style", "facade", "view", "street")


@dataclasses.dataclass(frozen=True)
class WorldSize:
    """How much of everything a world has.

    Attributes:
      image_side: pixels of an image's longer side.
      facade_side: facade pixels of a facade's longer side.
      families: families of the landmarks to train on and to evaluate.
      other_families: families of the unrelated landmarks.
      train, evaluation, look_alike, unrelated: numbers of landmarks.
      train_views, validation_views, index_views, query_views, distractor_views: views of each.
    """

    image_side: int
    facade_side: int
    families: int
    other_families: int
    train: int
    evaluation: int
    look_alike: int
    unrelated: int
    train_views: int
    validation_views: int
    index_views: int
    query_views: int
    distractor_views: int


SIZES = {
    "tiny": WorldSize(64, 128, 3, 1, 4, 3, 3, 2, 6, 2, 6, 1, 2),
    "small": WorldSize(160, 320, 12, 8, 48, 24, 36, 24, 24, 6, 10, 2, 5),
}


@dataclasses.dataclass(frozen=True)
class Shot:
    """A view to render.

    Attributes:
      landmark: id of the landmark.
      family: number of its family.
      view: number of the view among the landmark's.
      kind: a key of `render.KINDS`.
    """

    landmark: int
    family: int
    view: int
    kind: str

    @property
    def name(self) -> str:
        """Name of the image, unique in the world."""
        return f"{landmark_name(self.landmark)}_view{self.view:03d}"


def landmark_name(landmark: int) -> str:
    """Returns the name of a landmark, which begins the names of its images."""
    return f"landmark{landmark:04d}"


def world_size(size: str) -> WorldSize:
    """Returns the numbers of a size.

    Raises:
      UserError: if there is no such size.
    """
    require_choice("config.data.synthetic.size", size, sorted(SIZES))
    return SIZES[size]


def shots(size: WorldSize, split: str) -> list[Shot]:
    """Lists the views of a split, landmark by landmark.

    Args:
      size: numbers of the world.
      split: one of `SPLITS`.

    Returns:
      The views; their number and kinds don't depend on the world's seed.
    """
    train = range(size.train)
    evaluation = range(train.stop, train.stop + size.evaluation)
    look_alike = range(evaluation.stop, evaluation.stop + size.look_alike)
    unrelated = range(look_alike.stop, look_alike.stop + size.unrelated)
    if split == "train":
        return _views(size, train, 0, _cycle(TRAIN_KINDS, size.train_views))
    if split == "validation":
        return _views(size, train, size.train_views, _cycle(TRAIN_KINDS, size.validation_views))
    if split == "query":
        return _views(size, evaluation, size.index_views, ["query"] * size.query_views)
    if split == "index":
        distractors = _cycle(DISTRACTOR_KINDS, size.distractor_views)
        return (
            _views(size, evaluation, 0, _cycle(INDEX_KINDS, size.index_views))
            + _views(size, look_alike, 0, distractors)
            + _views(size, unrelated, 0, distractors)
        )
    raise ValueError(f"split {split!r}: must be one of {', '.join(SPLITS)}")


def _cycle(kinds: tuple[str, ...], count: int) -> list[str]:
    return [kinds[view % len(kinds)] for view in range(count)]


def _family(size: WorldSize, landmark: int) -> int:
    related = size.train + size.evaluation + size.look_alike
    if landmark < related:
        return landmark % size.families
    return size.families + (landmark - related) % size.other_families


def _views(size: WorldSize, landmarks: range, first: int, kinds: list[str]) -> list[Shot]:
    return [
        Shot(landmark, _family(size, landmark), first + view, kind)
        for landmark in landmarks
        for view, kind in enumerate(kinds)
    ]


def generator(seed: int, stream: str, *ids: int) -> np.random.Generator:
    """Returns the generator of one thing of a world.

    The same arguments always give the same draws, whatever was drawn before and in whichever
    process, so images can be rendered in any order.

    Args:
      seed: seed of the world, not negative.
      stream: one of `STREAMS`.
      *ids: what within the stream, for example landmark and view.

    Returns:
      A NumPy generator at the start of its stream.

    Raises:
      ValueError: if there is no such stream.
    """
    if stream not in STREAMS:
        raise ValueError(f"stream {stream!r}: must be one of {', '.join(STREAMS)}")
    return np.random.default_rng(np.random.SeedSequence([seed, STREAMS.index(stream), *ids]))
