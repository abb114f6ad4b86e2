"""Training images that show what test pictures show, which makes a test too easy."""

import dataclasses
from collections.abc import Callable, Iterable, Iterator

import numpy as np

from delg_jax.retrieval.searcher import Query, Searcher


@dataclasses.dataclass(frozen=True)
class Overlap:
    """A training image that shows what a test picture shows.

    Attributes:
      query: name of the test picture.
      image: index of the training image.
      name: of the training image.
      inliers: of the geometry that both share.
    """

    query: str
    image: int
    name: str
    inliers: int


def find(
    searcher: Searcher,
    queries: Iterable[tuple[str, np.ndarray]],
    method: str,
    candidates: int,
    min_inliers: int,
    seen: Callable[[Query, np.ndarray, list[Overlap]], None] = lambda *_: None,
) -> Iterator[Overlap]:
    """Searches the training images for test pictures, and verifies the geometry of what it finds.

    Args:
      searcher: opened on the training images.
      queries: name and uint8 [H, W, 3] of each test picture.
      method: of the search, one of `methods.METHODS`; candidates of `...+sp` are verified already,
        those of other methods here, by the same rule.
      candidates: images verified for each test picture, the first of its ranking.
      min_inliers: fewer are no overlap.
      seen: called after each test picture with its features, pixels and overlaps.

    Yields:
      Overlaps, in the order of test pictures, the one with the most inliers first.
    """
    for name, picture in queries:
        query = searcher.query(picture)
        found = []
        for hit in searcher.search(query, method, candidates).hits:
            inliers = hit.score
            if not method.endswith("+sp"):
                inliers = searcher.matches(query, hit.image).verification.inlier_mask.sum()
            if inliers >= min_inliers:
                found.append(Overlap(name, hit.image, hit.name, int(inliers)))
        found.sort(key=lambda overlap: -overlap.inliers)
        seen(query, picture, found)
        yield from found


def images(overlaps: Iterable[Overlap]) -> list[str]:
    """Names of the training images, each once, sorted."""
    return sorted({overlap.name for overlap in overlaps})
