"""Random unit vectors, and images of places that share local features."""

import numpy as np

_ALIGNMENT = 64  # bytes of a cache line; JAX uses aligned arrays without copying them
_SHARED = 0.3  # share of an image's features that come from its place
_NOISE = 0.5  # length of the noise added to a feature of a place, of length 1


def aligned(array: np.ndarray) -> np.ndarray:
    """Returns a copy that starts at a cache line."""
    memory = np.empty(array.nbytes + _ALIGNMENT, np.uint8)
    start = -memory.ctypes.data % _ALIGNMENT
    copy = memory[start : start + array.nbytes].view(array.dtype).reshape(array.shape)
    copy[...] = array
    return copy


def normalized(vectors: np.ndarray) -> np.ndarray:
    """Returns the vectors [..., D] scaled to length 1."""
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def unit(rng: np.random.Generator, *shape: int) -> np.ndarray:
    """Returns random unit vectors, float32 of a shape [..., D], aligned to a cache line."""
    found = aligned(rng.standard_normal(shape, np.float32))
    found /= np.linalg.norm(found, axis=-1, keepdims=True)
    return found


def places(
    rng: np.random.Generator, queries: int, images: int, features: int, dim: int, views: int = 80
) -> tuple[np.ndarray, np.ndarray]:
    """Draws queries and images of places.

    Each place is shown by `views` images. Some features of an image are those of its place with
    noise, the others are random.

    Args:
      rng: random generator.
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
    drawn = []
    for of_place in (np.arange(queries) % number, np.arange(images) % number):
        descriptors = unit(rng, len(of_place), features, dim)
        shown = rng.random((len(of_place), features)) < _SHARED
        descriptors[shown] = normalized(common[of_place][shown] + _NOISE * descriptors[shown])
        drawn.append(descriptors)
    return drawn[0], drawn[1]
