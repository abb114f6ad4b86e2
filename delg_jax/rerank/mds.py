"""Similarity embeddings: vectors made on the fly from local similarities, and their re-ranking.

Aiger et al., "local-to-global" retrieval (2025): the short list of a local search and its query
are embedded by classical multidimensional scaling, and the embedding is compared as a global
descriptor would be.
"""

import dataclasses
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.search.graph import SimilarityGraph

Array = jax.Array | np.ndarray

FORMS = ("chord", "complement", "reciprocal")

# Similarities below this count as missing, so that 1 / s and its square stay finite.
_LEAST_SIMILARITY = 1e-6


@dataclasses.dataclass(frozen=True)
class MdsSettings:
    """How a short list is embedded; the same names as in the configuration.

    Attributes:
      short_list: images of the local search that are re-ranked, M.
      dim: dimension of the embedding.
      distance: form of the distance, one of `FORMS`.
      contrast: similarity that counts as 1; it lies far below 1 for different photographs.
      weight: share of the embedding in the score, beside the local similarity.
    """

    short_list: int = 400
    dim: int = 128
    distance: str = "chord"
    contrast: float = 1.0
    weight: float = 0.3

    def __post_init__(self) -> None:
        """Raises a ValueError that names the first wrong field."""
        if self.distance not in FORMS:
            raise ValueError(f"`distance` (={self.distance!r}) must be one of {', '.join(FORMS)}")
        if self.contrast <= 0:
            raise ValueError(f"`contrast` (={self.contrast}) must be positive")
        if not 0 <= self.weight <= 1:
            raise ValueError(f"`weight` (={self.weight}) must lie in [0, 1]")
        for name in ("short_list", "dim"):
            if getattr(self, name) < 1:
                raise ValueError(f"`{name}` (={getattr(self, name)}) must be at least 1")


@partial(jax.jit, static_argnames=("form", "contrast"))
def distances(similarities: jax.Array, form: str, contrast: float) -> jax.Array:
    """Turns similarities into symmetric distances with a zero diagonal.

    The similarity is averaged over its two directions, divided by `contrast`, and clipped to
    [0, 1].

    Args:
      similarities: float [n, n], larger is better, 0 where missing; the diagonal is not read.
      form: chord sqrt(2 - 2 s), complement 1 - s, or reciprocal 1 / s. A missing pair gets the
        largest distance there can be, for the reciprocal the largest in the matrix.
      contrast: similarity that counts as 1.

    Returns:
      float32 [n, n].

    Raises:
      ValueError: for an unknown form.
    """
    diagonal = jnp.eye(len(similarities), dtype=bool)
    scaled = jnp.clip(0.5 * (similarities + similarities.T) / contrast, 0.0, 1.0)
    scaled = jnp.where(diagonal, 1.0, scaled)
    if form == "chord":
        result = jnp.sqrt(2.0 - 2.0 * scaled)
    elif form == "complement":
        result = 1.0 - scaled
    elif form == "reciprocal":
        present = scaled > _LEAST_SIMILARITY
        known = 1.0 / jnp.where(present, scaled, 1.0)
        result = jnp.where(present, known, known.max())
    else:
        raise ValueError(f"`form` (={form!r}) must be one of {', '.join(FORMS)}")
    return jnp.where(diagonal, 0.0, result)


@partial(jax.jit, static_argnames="dim")
def classical_mds(distances: jax.Array, dim: int, mask: jax.Array | None = None) -> jax.Array:
    """Points whose Euclidean distances are as given (Torgerson, 1952).

    B = -1/2 J D^2 J with J = I - 1 1^T / n, and X = V sqrt(Lambda) over the largest positive
    eigenvalues. The largest coordinate of each column is positive, which fixes its sign.

    Args:
      distances: float [n, n], symmetric.
      dim: columns wanted; those without a positive eigenvalue are zero.
      mask: bool [n], False on rows that are not points; they get zeros.

    Returns:
      float32 [n, dim].
    """
    count = len(distances)
    weight = jnp.ones(count) if mask is None else mask.astype(jnp.float32)
    both = weight[:, None] * weight[None, :]
    centring = jnp.diag(weight) - both / jnp.maximum(weight.sum(), 1.0)
    highest = jax.lax.Precision.HIGHEST
    gram = jnp.matmul(
        jnp.matmul(centring, distances**2, precision=highest), centring, precision=highest
    )
    values, vectors = jnp.linalg.eigh(-0.5 * gram)
    values, vectors = values[::-1][:dim], vectors[:, ::-1][:, :dim]
    positive = values > count * jnp.finfo(jnp.float32).eps * jnp.maximum(values[0], 0.0)
    points = vectors * jnp.sqrt(jnp.where(positive, values, 0.0))[None, :]
    largest = jnp.argmax(jnp.abs(points), axis=0)[None, :]
    points *= jnp.where(jnp.take_along_axis(points, largest, axis=0) < 0.0, -1.0, 1.0)
    points *= weight[:, None]
    return jnp.pad(points, ((0, 0), (0, dim - points.shape[1])))


@partial(jax.jit, static_argnames="settings")
def scores(
    query_similarities: jax.Array,
    pair_similarities: jax.Array,
    mask: jax.Array,
    settings: MdsSettings,
) -> jax.Array:
    """Scores the short list of a query by embedding and local similarity together.

    weight * cosine(query, image) + (1 - weight) * min(s(query, image) / contrast, 1), with the
    cosine between rows of the joint embedding of the query and its short list.

    Args:
      query_similarities: float [M], s(query, image); it stands for both directions.
      pair_similarities: float [M, M], s(image, image), 0 where missing.
      mask: bool [M], False where the short list is shorter than M.
      settings: see `MdsSettings`.

    Returns:
      float32 [M], minus infinity outside the mask.
    """
    matrix = jnp.pad(pair_similarities, ((1, 0), (1, 0)))
    matrix = matrix.at[0, 1:].set(query_similarities).at[1:, 0].set(query_similarities)
    points = classical_mds(
        distances(matrix, settings.distance, settings.contrast),
        settings.dim,
        jnp.pad(mask, (1, 0), constant_values=True),
    )
    norms = jnp.linalg.norm(points, axis=1, keepdims=True)
    points /= jnp.where(norms > 0.0, norms, 1.0)
    cosines = (points[1:] * points[:1]).sum(axis=1)
    local = jnp.minimum(query_similarities / settings.contrast, 1.0)
    score = settings.weight * cosines + (1.0 - settings.weight) * local
    return jnp.where(mask, score, -jnp.inf)


def rerank(
    rankings: Array, similarities: Array, graph: SimilarityGraph, settings: MdsSettings
) -> np.ndarray:
    """Re-ranks the short list of each query; the images below it keep their order.

    Args:
      rankings: int [Q, N], result of the local search, best first.
      similarities: float [Q, N], local similarities in the order of `rankings`.
      graph: similarities among the database images.
      settings: see `MdsSettings`.

    Returns:
      The new rankings, int [Q, N]; equal scores keep the order of the search.
    """
    rankings = np.array(rankings)
    count = min(settings.short_list, rankings.shape[1])
    present = np.ones(count, bool)
    for ranking, to_query in zip(rankings, np.asarray(similarities), strict=True):
        head = ranking[:count]
        score = np.asarray(scores(to_query[:count], graph.dense(head), present, settings))
        ranking[:count] = head[np.argsort(-score, kind="stable")]
    return rankings
