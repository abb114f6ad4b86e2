"""Random unit vectors, and images that share some."""

import numpy as np

_LINE = 64  # bytes; arrays that start at a multiple of it are used without a copy
_SHARED = 0.3  # of an image's features that are those of its place
_NOISE = 0.5  # beside a feature of a place, in its length


def aligned(array: np.ndarray) -> np.ndarray:
    """A copy that starts at a cache line."""
    memory = np.empty(array.nbytes + _LINE, np.uint8)
    start = -memory.ctypes.data % _LINE
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def normalized(vectors: np.ndarray) -> np.ndarray:
    """The same directions [..., D] with length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Unit vectors float32 of a shape [..., D], at the start of a cache line."""
    found = aligned(rng.standard_normal(shape, np.float32))
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return found


def places(
    rng: np.random.Generator, queries: int, images: int, features: int, dim: int, views: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """Queries and images of places.

    An image shows one of the places, each of which is shown `views` times: of its features some
    are the place's with noise, the others random.

    Args:
      rng: for the draws.
      queries: Q; the first shows the first place.
      images: N.
      features: K of an image.
      dim: D.
      views: images of a place.

    Returns:
      Unit vectors float32, queries [Q, K, D] and database [N, K, D].
    """
    number = max(1, images // views)
    common = unit(rng, number, features, dim)
    sides = []
    for of_place in (np.arange(queries) % number, np.arange(images) % number):
        side = unit(rng, len(of_place), features, dim)
        shown = rng.random((len(of_place), features)) < _SHARED
        side[shown] = normalized(common[of_place][shown] + _NOISE * side[shown])
        sides.append(side)
    return sides[0], sides[1]
