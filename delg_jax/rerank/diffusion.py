"""Diffusion of query similarities along the similarity graph of the database.

Iscen, Tolias, Avrithis, Furon, Chum, "Efficient Diffusion on Region Manifolds", CVPR 2017.
"""

import dataclasses
from collections.abc import Callable
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import WrongField, require_least
from delg_jax.search.batching import padded_rows, starts
from delg_jax.search.graph import SimilarityGraph
from delg_jax.search.kernels import MAX_POWER

Array = jax.Array | np.ndarray


@dataclasses.dataclass(frozen=True)
class DiffusionSettings:
    """The settings of diffusion; `config.rerank.diffusion` has the same names.

    Attributes:
      neighbours: of an image in the graph, k; only mutual neighbours are connected.
      query_neighbours: best images of a query, from which diffusion starts.
      power: exponent of similarities, gamma.
      spread: weight of the neighbours, alpha; in [0, 1).
      iterations: of conjugate gradients; 20 in the paper.
    """

    neighbours: int = 50
    query_neighbours: int = 10
    power: float = 3.0
    spread: float = 0.99
    iterations: int = 20

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        require_least(self, 1, "neighbours", "query_neighbours", "iterations")
        if not 0 <= self.spread < 1:
            raise WrongField("spread", self.spread, "must lie in [0, 1)")
        if not 0 < self.power <= MAX_POWER:
            raise WrongField("power", self.power, f"must lie in (0, {MAX_POWER}]")


def rerank(
    ranks: Array,
    similarities: Array,
    graph: SimilarityGraph,
    settings: DiffusionSettings,
    query_block: int = 32,
) -> tuple[np.ndarray, np.ndarray]:
    """Re-ranks the whole database for each query.

    Args:
      ranks: int [Q, N], images, best first.
      similarities: float [Q, N], in the order of `ranks`.
      graph: similarities among the N database images, of the same kind as those to the query.
      settings: see `DiffusionSettings`.
      query_block: queries computed at a time; memory holds [query_block, N, neighbours].

    Returns:
      The new rankings, int [Q, N], where images that are not reached come last in their order; and
      the diffused similarities, float32 [Q, N], in the new order.
    """
    ranks, similarities = np.asarray(ranks), np.asarray(similarities, np.float32)
    columns, weights = _affinity(graph, settings)
    query_block = min(query_block, max(len(ranks), 1))
    result, diffused = np.empty_like(ranks), np.empty(ranks.shape, np.float32)
    for start in starts(len(ranks), query_block):
        rows = padded_rows(ranks, start, query_block)
        found = diffuse(
            columns, weights, rows, padded_rows(similarities, start, query_block), settings
        )
        values = np.take_along_axis(np.asarray(found), rows, axis=1)
        order = np.argsort(-values, axis=1, kind="stable")
        finished = slice(start, min(start + query_block, len(ranks)))
        kept = finished.stop - start
        result[finished] = np.take_along_axis(rows, order, axis=1)[:kept]
        diffused[finished] = np.take_along_axis(values, order, axis=1)[:kept]
    return result, diffused


def _affinity(graph: SimilarityGraph, settings: DiffusionSettings) -> tuple[np.ndarray, np.ndarray]:
    """Neighbours int [N, k] and symmetrically normalised weights float32 [N, k], 0 if not mutual.

    The weight of a pair is the smaller of its two similarities to the power: it is symmetric,
    although the similarity is not.
    """
    count = len(graph)
    similarities, columns = graph.nearest(settings.neighbours + 1)
    forward = np.maximum(similarities, 0.0)
    rows = np.arange(count)[:, None]
    codes = (rows.astype(np.int64) * count + columns).ravel()
    order = np.argsort(codes)
    wanted = (columns.astype(np.int64) * count + rows).ravel()
    position = np.minimum(np.searchsorted(codes, wanted, sorter=order), len(codes) - 1)
    found = order[position]
    backward = np.where(codes[found] == wanted, forward.ravel()[found], 0.0)
    weights = np.minimum(forward, backward.reshape(forward.shape)) ** settings.power
    weights = np.where(columns == rows, 0.0, weights)
    degree = weights.sum(axis=1)
    roots = 1.0 / np.sqrt(np.where(degree > 0.0, degree, 1.0))
    return columns, (weights * roots[:, None] * roots[columns]).astype(np.float32)


@partial(jax.jit, static_argnames="settings")
def diffuse(
    columns: jax.Array,
    weights: jax.Array,
    ranks: jax.Array,
    similarities: jax.Array,
    settings: DiffusionSettings,
) -> jax.Array:
    """Solves (I - alpha S) f = y for each query by conjugate gradients.

    Args:
      columns: int [N, k], neighbours in the graph.
      weights: float [N, k], the entries of S, symmetric, with eigenvalues in [-1, 1].
      ranks: int [Q, N], images, best first.
      similarities: float [Q, N], in the order of `ranks`; the first give y.
      settings: see `DiffusionSettings`.

    Returns:
      f, float32 [Q, N], by image.
    """
    first = min(settings.query_neighbours, ranks.shape[1])

    def spread(values: jax.Array) -> jax.Array:
        return values - settings.spread * (weights * values[columns]).sum(axis=1)

    def one(images: jax.Array, values: jax.Array) -> jax.Array:
        values = jnp.maximum(values, 0.0) ** settings.power
        start = jnp.zeros(len(columns)).at[images].set(values)
        return _conjugate_gradients(spread, start, settings.iterations)

    return jax.vmap(one)(ranks[:, :first], similarities[:, :first])


def _conjugate_gradients(
    apply: Callable[[jax.Array], jax.Array], target: jax.Array, iterations: int
) -> jax.Array:
    """Solves apply(x) = target in a fixed number of steps from 0; later steps have length 0."""

    def step(_: int, state: tuple[jax.Array, ...]) -> tuple[jax.Array, ...]:
        """One iteration; a zero direction changes nothing."""
        solution, residual, direction, square = state
        applied = apply(direction)
        curvature = (direction * applied).sum()
        length = jnp.where(
            curvature > 0.0, square / jnp.where(curvature > 0.0, curvature, 1.0), 0.0
        )
        residual = residual - length * applied
        after = (residual**2).sum()
        growth = jnp.where(square > 0.0, after / jnp.where(square > 0.0, square, 1.0), 0.0)
        return solution + length * direction, residual, residual + growth * direction, after

    start = (jnp.zeros_like(target), target, target, (target**2).sum())
    return jax.lax.fori_loop(0, iterations, step, start)[0]
