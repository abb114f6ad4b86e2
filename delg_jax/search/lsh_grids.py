"""Randomly rotated and shifted grids over descriptors, with hashed cells."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import WrongField, require_least
from delg_jax.search.kernels import CANN_CURVE, cann_vote


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
        return np.asarray(cann_vote(jnp.asarray(self.radii()), self.reach, self.curve))


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
