"""Constrained approximate nearest neighbours: local search with hashed random grids.

Aiger, Araujo, Lynen, "Yes, we CANN: Constrained Approximate Nearest Neighbors for local
feature-based visual localization", ICCV 2023. It estimates the asymmetric Chamfer similarity of
`local_search` with the kernel cann, without comparing descriptors.
"""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import UserError, WrongField, require_least
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.index_checks import (
    require_counts,
    require_dimension,
    require_images,
    require_offsets,
)
from delg_jax.search.kernels import CANN_CURVE, cann_vote

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class GridSettings:
    """Radii and grids of constrained approximate nearest neighbours, for unit vectors.

    The original code has r0 = 28.283 and p0 = 120 for descriptors of norm 120; the defaults are
    these values over 120. See `from_scale`.

    Attributes:
      first_radius: smallest radius, r0.
      reach: radius from which on votes are 0, p0.
      curve: p1 of the votes.
      approximation: c; radii grow by 1 + (c - 1) / 4, and a cell of radius r has the diagonal
        width r c.
      grids: grids at each radius.
      axes: rotated axes of a grid, 0 = all. With fewer axes, near neighbours share a cell more
        often, and so do unrelated descriptors.
      width: side of a cell relative to the original; wider cells hold more descriptors.
      seed: of rotations, shifts and hashing.
    """

    first_radius: float = 28.283 / 120.0
    reach: float = 1.0
    curve: float = CANN_CURVE
    approximation: float = 1.16594
    grids: int = 20
    axes: int = 0
    width: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        if not 0 < self.first_radius < self.reach:
            raise WrongField("first_radius", self.first_radius, "must lie in (0, reach)")
        if not 0 < self.curve < 1:
            raise WrongField("curve", self.curve, "must lie in (0, 1)")
        if self.approximation <= 1:
            raise WrongField("approximation", self.approximation, "must be above 1")
        require_least(self, 1, "grids")
        if self.width <= 0:
            raise WrongField("width", self.width, "must be positive")
        require_least(self, 0, "axes", "seed")

    @classmethod
    def from_scale(
        cls, norm: float, first_radius: float = 28.283, reach: float = 120.0, **others: Any
    ) -> "GridSettings":
        """Settings with radii meant for descriptors of another norm.

        Args:
          norm: of the descriptors that the radii are meant for.
          first_radius: r0 on their scale.
          reach: p0 on their scale.
          **others: the other fields.

        Returns:
          The settings for unit vectors.

        Raises:
          WrongField: for the first that is wrong.
        """
        if norm <= 0:
            raise WrongField("norm", norm, "must be positive")
        return cls(first_radius / norm, reach / norm, **others)

    def radii(self) -> np.ndarray:
        """The radii, float64 [R], ascending, below the reach."""
        factor = 1.0 + (self.approximation - 1.0) / 4.0
        count = int(np.ceil(np.log(self.reach / self.first_radius) / np.log(factor))) + 1
        radii = self.first_radius * factor ** np.arange(count)
        return radii[radii < self.reach]

    def votes(self) -> np.ndarray:
        """The vote of a match that is first found at each radius, float32 [R], descending."""
        return np.asarray(cann_vote(jax.device_put(self.radii()), self.reach, self.curve))


@dataclasses.dataclass(frozen=True)
class Grids:
    """The drawn grids, with cells of side 1.

    Attributes:
      rotations: float32 [G, D, A], orthonormal columns, the axes of each grid.
      shifts: float32 [G, A], in [0, 1).
      factors: uint32 [A], odd, of the hash.
      sides: float32 [R], side of a cell at each radius, width r c / sqrt(D).
    """

    rotations: np.ndarray
    shifts: np.ndarray
    factors: np.ndarray
    sides: np.ndarray

    @classmethod
    def draw(cls, settings: GridSettings, dimension: int) -> "Grids":
        """Draws the grids of `settings` for descriptors [..., dimension]; deterministic."""
        rng = np.random.default_rng(settings.seed)
        axes = min(settings.axes or dimension, dimension)
        gaussian = rng.normal(size=(settings.grids, dimension, dimension))
        rotations = np.linalg.qr(gaussian)[0][:, :, :axes]
        shifts = rng.random((settings.grids, axes))
        factors = rng.integers(0, 2**31, axes).astype(np.uint32) * np.uint32(2) + np.uint32(1)
        factor = settings.width * settings.approximation / np.sqrt(dimension)
        return cls(
            rotations.astype(np.float32),
            shifts.astype(np.float32),
            factors,
            (settings.radii() * factor).astype(np.float32),
        )

    def cells(self, descriptors: np.ndarray, grid: int) -> np.ndarray:
        """Hashed cells of descriptors [F, D] in one grid at each radius, uint32 [R, F]."""
        return np.asarray(
            _cells(
                np.asarray(descriptors, np.float32),
                self.rotations[grid],
                self.shifts[grid],
                self.factors,
                self.sides,
            )
        )


@jax.jit
def _cells(
    descriptors: jax.Array,
    rotation: jax.Array,
    shift: jax.Array,
    factors: jax.Array,
    sides: jax.Array,
) -> jax.Array:
    """Hashes of cells: their coordinates times odd random factors, summed modulo 2^32."""
    rotated = jnp.matmul(descriptors, rotation, precision=jax.lax.Precision.HIGHEST)

    def at_radius(side: jax.Array) -> jax.Array:
        numbers = jnp.floor(rotated / side + shift[None, :]).astype(jnp.int32)
        return (numbers.astype(jnp.uint32) * factors[None, :]).sum(axis=1, dtype=jnp.uint32)

    return jax.lax.map(at_radius, sides)


@dataclasses.dataclass(frozen=True)
class CannIndex:
    """For each radius and grid, the non-empty cells and the images in each.

    It takes 8 bytes per radius, grid, cell and image in the cell: at most 8 R G bytes per feature.

    Attributes:
      settings: radii and grids.
      dimension: of the descriptors, D.
      count: images, N.
      keys: uint32 [E], hashed cells, ascending for each radius and grid; one entry per image.
      images: int32 [E], ascending in a cell.
      offsets: int64 [R G + 1]; entry r G + g is the start of radius r and grid g.
    """

    settings: GridSettings
    dimension: int
    count: int
    keys: np.ndarray
    images: np.ndarray
    offsets: np.ndarray

    def entries(self, radius: int, grid: int) -> slice:
        """The entries of one radius and grid."""
        table = radius * self.settings.grids + grid
        return slice(int(self.offsets[table]), int(self.offsets[table + 1]))

    def check(self) -> None:
        """Raises a ValueError if the arrays do not fit together."""
        tables = len(self.settings.radii()) * self.settings.grids
        require_counts(dimension=self.dimension, count=self.count)
        require_offsets(self.offsets, tables, len(self.keys))
        require_images(self.images, self.count)
        if self.keys.shape != self.images.shape or self.keys.dtype != np.uint32:
            raise ValueError(f"keys have dtype {self.keys.dtype} and shape {self.keys.shape}")


def build(
    descriptors: Array,
    mask: Array,
    settings: GridSettings,
    block: int = 256,
) -> CannIndex:
    """Builds the index of a database.

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
    tables: list[list[list[np.ndarray]]] = [
        [[] for _ in range(settings.grids)] for _ in grids.sides
    ]
    for start in starts(count, block):
        rows = padded_rows(descriptors, start, block).reshape(block * features, dimension)
        present = np.flatnonzero(padded_rows(mask, start, block))
        images = (start + present // features).astype(np.uint64)
        for grid in range(settings.grids):
            for radius, cells in enumerate(grids.cells(rows, grid)):
                keys = cells[present].astype(np.uint64)
                tables[radius][grid].append(np.unique(keys << np.uint64(32) | images))
    codes = [_sorted(blocks) for row in tables for blocks in row]
    entries = np.concatenate(codes)
    return CannIndex(
        settings,
        dimension,
        count,
        (entries >> np.uint64(32)).astype(np.uint32),
        (entries & np.uint64(2**32 - 1)).astype(np.int32),
        np.concatenate([[0], np.cumsum([len(table) for table in codes])]).astype(np.int64),
    )


def similarity(
    index: CannIndex, queries: Array, query_mask: Array, idf: bool = False
) -> np.ndarray:
    """Estimated similarity of every query to every image of the index.

    The vote of a query feature for an image is that of the smallest radius at which they share a
    cell; the similarity is the mean vote over the query features.

    Memory holds one byte per pair of a feature of one query and an image.

    Args:
      index: of N images.
      queries: float [Q, Kq, D], unit norm.
      query_mask: bool [Q, Kq], False on padding.
      idf: whether votes are weighted by log(N / df) / log(N), as by `local_search.idf_weights`,
        where df is the number of images that share a cell with the feature, at least 1.

    Returns:
      float32 [Q, N], in [0, 1].

    Raises:
      ValueError: if the dimensions differ.
    """
    require_dimension("queries", queries, index.dimension)
    grids, votes = Grids.draw(index.settings, index.dimension), index.settings.votes()
    result = np.zeros((len(queries), index.count), np.float32)
    for row, (query, valid) in enumerate(zip(np.asarray(queries), query_mask, strict=True)):
        cells = np.stack([grids.cells(query, grid) for grid in range(index.settings.grids)], axis=1)
        result[row] = _votes(index, cells[:, :, np.asarray(valid)], votes, idf)
    return result


def _votes(index: CannIndex, cells: np.ndarray, votes: np.ndarray, idf: bool) -> np.ndarray:
    """Similarities [N] of one query by the cells [R, G, F] of its features."""
    features = cells.shape[2]
    seen = np.zeros(features * index.count, bool)
    voting, voted = [np.zeros(0, np.int64)], [np.zeros(0)]
    for radius, vote in enumerate(votes):
        sharing = [
            _pairs(index, index.entries(radius, grid), cells[radius, grid])
            for grid in range(index.settings.grids)
        ]
        pairs = np.concatenate(sharing)
        fresh = np.unique(pairs[~seen[pairs]])
        seen[fresh] = True
        voting.append(fresh)
        voted.append(np.full(len(fresh), vote))
    feature, image = np.divmod(np.concatenate(voting), max(index.count, 1))
    weights = np.concatenate(voted)
    if idf and index.count > 1:
        frequency = np.bincount(feature, minlength=features)
        rarity = np.log(index.count / np.maximum(frequency, 1)) / np.log(index.count)
        weights = weights * rarity[feature]
    return np.bincount(image, weights, index.count) / max(features, 1)


def _pairs(index: CannIndex, entries: slice, cells: np.ndarray) -> np.ndarray:
    """Codes feature * N + image of the images that share the cells [F] of one grid."""
    keys = index.keys[entries]
    first = np.searchsorted(keys, cells, "left")
    lengths = np.searchsorted(keys, cells, "right") - first
    if lengths.min(initial=0) < 0:  # only the keys that are read are known
        rule = "must have its keys in ascending order; delete its folder to rebuild it"
        raise UserError("search index", "keys", rule)
    features = np.repeat(np.arange(len(cells)), lengths)
    within = np.arange(lengths.sum()) - np.repeat(np.cumsum(lengths) - lengths, lengths)
    images = index.images[entries][np.repeat(first, lengths) + within]
    return features * index.count + images


def _sorted(codes: list[np.ndarray]) -> np.ndarray:
    """One ascending array of the codes (key << 32 | image) of all blocks."""
    return np.sort(np.concatenate([np.zeros(0, np.uint64), *codes]))
