"""Constrained approximate nearest neighbours: local search by the cells of random grids.

Aiger, Araujo, Lynen, "Yes, we CANN: Constrained Approximate Nearest Neighbors for local
feature-based visual localization", ICCV 2023. It estimates the asymmetric Chamfer similarity of
`local_search` with the kernel cann, and compares no descriptors to do so.
"""

import dataclasses

import jax
import numpy as np

from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.index_checks import require_counts, require_images, require_runs
from delg_jax.search.lsh_grids import Grids, GridSettings

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class CannIndex:
    """For each radius and grid, the cells that are not empty and the set of images in each.

    Memory is 8 bytes for each radius, grid, cell and image in it: at most 8 R G bytes a feature.

    Attributes:
      settings: radii and grids.
      dimension: of the descriptors, D.
      count: images, N.
      keys: uint32 [E], hashed cells; ascending for each radius and grid, once for each image.
      images: int32 [E], ascending in a cell.
      offsets: int64 [R G + 1], where the part of radius r and grid g starts: at r G + g.
    """

    settings: GridSettings
    dimension: int
    count: int
    keys: np.ndarray
    images: np.ndarray
    offsets: np.ndarray

    def part(self, radius: int, grid: int) -> slice:
        """Where the cells of a radius and a grid are."""
        number = radius * self.settings.grids + grid
        return slice(int(self.offsets[number]), int(self.offsets[number + 1]))

    def check(self) -> None:
        """Raises a ValueError if the parts do not fit together."""
        parts = len(self.settings.radii()) * self.settings.grids
        require_counts(dimension=self.dimension, count=self.count)
        require_runs(self.offsets, parts, len(self.keys))
        require_images(self.images, self.count)
        if self.keys.shape != self.images.shape or self.keys.dtype != np.uint32:
            raise ValueError(f"keys are {self.keys.dtype} of the shape {self.keys.shape}")


def build(
    descriptors: Array,
    mask: Array,
    settings: GridSettings,
    block: int = 256,
) -> CannIndex:
    """Puts the descriptors of a database into the cells.

    Args:
      descriptors: float [N, K, D], unit norm; an array or a memory map.
      mask: bool [N, K].
      settings: radii and grids.
      block: images hashed at a time.

    Returns:
      The index.

    Raises:
      ValueError: if `block` is not positive.
    """
    count, features, dimension = descriptors.shape
    grids = Grids.draw(settings, dimension)
    block = min(block, max(count, 1))
    parts = [[[] for _ in range(settings.grids)] for _ in grids.sides]
    for start in starts(count, block):
        rows = padded_rows(descriptors, start, block).reshape(block * features, dimension)
        used = np.flatnonzero(padded_rows(mask, start, block))
        owners = (start + used // features).astype(np.uint64)
        for grid in range(settings.grids):
            for radius, cells in enumerate(grids.cells(rows, grid)):
                codes = np.unique(cells[used].astype(np.uint64) << np.uint64(32) | owners)
                parts[radius][grid].append(codes)
    return _from_parts(
        settings, dimension, count, [_sorted(codes) for row in parts for codes in row]
    )


def append(index: CannIndex, descriptors: Array, mask: Array, block: int = 256) -> CannIndex:
    """A new index with further images, numbered on from those of `index`.

    Args:
      index: the index of N images; it stays as it is.
      descriptors: float [M, K, D], unit norm.
      mask: bool [M, K].
      block: images hashed at a time.

    Returns:
      The index of N + M images, equal to one that is built of all.

    Raises:
      ValueError: if the dimensions differ.
    """
    _check_dimension("descriptors", descriptors, index)
    new = build(descriptors, mask, index.settings, block)
    parts = []
    for number in range(len(index.offsets) - 1):
        old = _codes(index, number, 0)
        parts.append(_sorted([old, _codes(new, number, index.count)]))
    return _from_parts(index.settings, index.dimension, index.count + new.count, parts)


def similarity(index: CannIndex, queries: Array, query_mask: Array) -> np.ndarray:
    """Estimated similarity of every query to every image of the index.

    A query feature that first shares a cell with an image at radius r gives it the vote of r;
    the similarity is the sum of votes over the number of query features.

    Memory holds a byte for each feature of one query and each image.

    Args:
      index: of N images.
      queries: float [Q, Kq, D], unit norm.
      query_mask: bool [Q, Kq], False on padding.

    Returns:
      float32 [Q, N], in [0, 1].

    Raises:
      ValueError: if the dimensions differ.
    """
    _check_dimension("queries", queries, index)
    grids, votes = Grids.draw(index.settings, index.dimension), index.settings.votes()
    result = np.zeros((len(queries), index.count), np.float32)
    for row, (query, valid) in enumerate(zip(np.asarray(queries), query_mask, strict=True)):
        cells = np.stack([grids.cells(query, grid) for grid in range(index.settings.grids)], axis=1)
        result[row] = _votes(index, cells[:, :, np.asarray(valid)], votes)
    return result


def _votes(index: CannIndex, cells: np.ndarray, votes: np.ndarray) -> np.ndarray:
    """Similarities [N] of one query by the cells [R, G, F] of its features."""
    features = cells.shape[2]
    seen = np.zeros(features * index.count, bool)
    total = np.zeros(index.count)
    for radius, vote in enumerate(votes):
        found = [
            _pairs(index, index.part(radius, grid), cells[radius, grid])
            for grid in range(index.settings.grids)
        ]
        fresh = np.concatenate(found)
        fresh = np.unique(fresh[~seen[fresh]])
        seen[fresh] = True
        total += vote * np.bincount(fresh % index.count, minlength=index.count)
    return total / max(features, 1)


def _pairs(index: CannIndex, part: slice, cells: np.ndarray) -> np.ndarray:
    """Codes feature * N + image of the images that share the cells [F] of one grid."""
    keys = index.keys[part]
    first = np.searchsorted(keys, cells, "left")
    lengths = np.searchsorted(keys, cells, "right") - first
    features = np.repeat(np.arange(len(cells)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    images = index.images[part][np.repeat(first, lengths) + within]
    return features * index.count + images


def _from_parts(
    settings: GridSettings, dimension: int, count: int, parts: list[np.ndarray]
) -> CannIndex:
    codes = np.concatenate(parts)
    return CannIndex(
        settings,
        dimension,
        count,
        (codes >> np.uint64(32)).astype(np.uint32),
        (codes & np.uint64(2**32 - 1)).astype(np.int32),
        np.concatenate([[0], np.cumsum([len(part) for part in parts])]).astype(np.int64),
    )


def _codes(index: CannIndex, number: int, shift: int) -> np.ndarray:
    part = slice(int(index.offsets[number]), int(index.offsets[number + 1]))
    images = index.images[part].astype(np.uint64) + np.uint64(shift)
    return index.keys[part].astype(np.uint64) << np.uint64(32) | images


def _sorted(codes: list[np.ndarray]) -> np.ndarray:
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *codes]))


def _check_dimension(name: str, descriptors: Array, index: CannIndex) -> None:
    if descriptors.shape[-1] != index.dimension:
        raise ValueError(
            f"`{name}` (D={descriptors.shape[-1]}) must have the dimension of the index "
            f"(D={index.dimension})"
        )
