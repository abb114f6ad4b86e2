"""Similarity embeddings: vectors made on the fly from local similarities, and their re-ranking.

Aiger et al., "local-to-global" retrieval (2025): the short list of a local search and its query
are embedded by multidimensional scaling, and the embedding is compared as a global descriptor
would be.
"""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.rerank import superglobal
from delg_jax.rerank.distances import above, distances, level
from delg_jax.rerank.embedding import classical_mds, landmark_mds
from delg_jax.rerank.mds_settings import MdsSettings
from delg_jax.rerank.smacof import smacof
from delg_jax.search.blocks import starts
from delg_jax.search.graph import SimilarityGraph

Array = jax.Array | np.ndarray


@partial(jax.jit, static_argnames="settings")
def embed(
    similarities: jax.Array,
    mask: jax.Array,
    settings: MdsSettings,
    known: jax.Array | None = None,
) -> jax.Array:
    """Embeds images by their similarities.

    Args:
      similarities: float [n, n]; the diagonal is not read.
      mask: bool [n], False on rows that are no images.
      settings: see `MdsSettings`.
      known: bool [n, n], False where a similarity is missing; None for all True.

    Returns:
      float32 [n, dim]; zeros outside the mask.
    """
    present = mask[:, None] & mask[None, :]
    known = present if known is None else present & known
    between = distances(
        similarities,
        settings.distance,
        settings.contrast,
        settings.background,
        settings.power,
        settings.missing,
        known,
    )
    if settings.method == "landmark":
        return landmark_mds(between[: settings.landmarks + 1], settings.dim, mask, settings.solver)
    points = classical_mds(between, settings.dim, mask, settings.solver)
    if settings.method == "smacof":
        weights = jnp.where(known | known.T, 1.0, settings.missing_weight)
        weights = jnp.where(present, weights, 0.0)
        points = smacof(between, weights, points, settings.iterations)
    return points


@partial(jax.jit, static_argnames="settings")
def scores(
    query_similarities: jax.Array,
    pair_similarities: jax.Array,
    mask: jax.Array,
    settings: MdsSettings,
    global_descriptors: jax.Array | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Scores the short list of a query by embedding and local similarity together.

    weight * v(query, image) + (1 - weight) * s(query, image) between background (0) and contrast
    (1). v is the cosine between rows of the joint embedding of the query and its short list; with
    global descriptors, that of the weighted concatenations; with neighbours, the score of
    SuperGlobal on these rows, with the mean in the place of the elementwise maximum: an embedding
    is defined up to a rotation, and nothing that ranks may change with it.

    Args:
      query_similarities: float [M], s(query, image); it stands for both directions.
      pair_similarities: float [M, M], s(image, image).
      mask: bool [M], False where the short list is shorter than M.
      settings: see `MdsSettings`.
      global_descriptors: float [1 + M, D], unit norm, the query's first; None to do without.
      known: bool [M, M], False where a pair's similarity is missing; None for all True. That of
        the query to an image never is.

    Returns:
      float32 [M], minus infinity outside the mask.
    """
    matrix = jnp.pad(pair_similarities, ((1, 0), (1, 0)))
    matrix = matrix.at[0, 1:].set(query_similarities).at[1:, 0].set(query_similarities)
    if known is not None:
        known = jnp.pad(known, ((1, 0), (1, 0)), constant_values=True)
    images = jnp.pad(mask, (1, 0), constant_values=True)
    points = _unit(embed(matrix, images, settings, known))
    if global_descriptors is not None:
        share = settings.concat_weight
        points = jnp.concatenate(
            [share**0.5 * points, (1.0 - share) ** 0.5 * global_descriptors], axis=1
        )
    if settings.neighbours:
        vectors = superglobal.scores(
            points[0], points[1:], settings.neighbours, settings.beta, mask, pooling="mean"
        )
        vectors = jnp.where(mask, vectors, 0.0)
    else:
        vectors = (points[1:] * points[:1]).sum(axis=1)
    local = level(query_similarities, settings.contrast, settings.background)
    score = settings.weight * vectors + (1.0 - settings.weight) * local
    return jnp.where(mask, score, -jnp.inf)


def rerank(
    rankings: Array,
    similarities: Array,
    graph: SimilarityGraph,
    settings: MdsSettings,
    query_globals: Array | None = None,
    database_globals: Array | None = None,
) -> np.ndarray:
    """Re-ranks the short list of each query; the images below it keep their order.

    Args:
      rankings: int [Q, N], result of the local search, best first.
      similarities: float [Q, N], local similarities in the order of `rankings`; minus infinity for
        what is no image, which then has this score.
      graph: similarities among the database images.
      settings: see `MdsSettings`; memory holds the similarities of `query_block` short lists.
      query_globals: float [Q, D], unit norm; None to do without global descriptors.
      database_globals: float [N, D], unit norm; an array or a memory map.

    Returns:
      The new rankings, int [Q, N]; equal scores keep the order of the search.

    Raises:
      ValueError: if global descriptors are there for one side only.
    """
    found = list_scores(rankings, similarities, graph, settings, query_globals, database_globals)
    rankings, count = np.array(rankings), found.shape[1]
    order = np.argsort(-found, axis=1, kind="stable")
    rankings[:, :count] = np.take_along_axis(rankings[:, :count], order, axis=1)
    return rankings


def list_scores(
    rankings: Array,
    similarities: Array,
    graph: SimilarityGraph,
    settings: MdsSettings,
    query_globals: Array | None = None,
    database_globals: Array | None = None,
) -> np.ndarray:
    """The scores that `rerank` sorts by.

    Args:
      rankings: as of `rerank`, and so are the others.
      similarities: float [Q, N].
      graph: similarities among the database images.
      settings: see `MdsSettings`.
      query_globals: float [Q, D], or None.
      database_globals: float [N, D], or None.

    Returns:
      float32 [Q, M], in the order of `rankings`.

    Raises:
      ValueError: if global descriptors are there for one side only.
    """
    if (query_globals is None) != (database_globals is None):
        raise ValueError("`query_globals` and `database_globals` must be given together")
    heads = np.asarray(rankings)[:, : settings.short_list]
    to_query = np.asarray(similarities)[:, : settings.short_list]
    present = to_query > -np.inf
    rank = settings.background_rank
    if rank:
        lists = np.asarray(similarities)
        to_query = above(to_query, lists[:, min(rank, lists.shape[1]) - 1])
    found = np.empty(heads.shape, np.float32)
    block = min(settings.query_block, max(len(heads), 1))
    for start in starts(len(heads), block):
        # The last block is filled with its last query, so that one shape is compiled
        rows = np.minimum(np.arange(start, start + block), len(heads) - 1)
        pairs, known = map(np.stack, zip(*map(graph.dense, heads[rows]), strict=True))
        if rank:
            pairs = above(pairs, graph.at_rank(heads[rows], rank))
        vectors = None
        if query_globals is not None:
            images = [database_globals[head] for head in heads[rows]]
            vectors = np.concatenate([query_globals[rows][:, None], np.stack(images)], axis=1)
        found[rows] = _block_scores(to_query[rows], pairs, known, present[rows], settings, vectors)
    return found


@partial(jax.jit, static_argnames="settings")
def _block_scores(
    to_query: jax.Array,
    pairs: jax.Array,
    known: jax.Array,
    mask: jax.Array,
    settings: MdsSettings,
    vectors: jax.Array | None,
) -> jax.Array:
    """Scores [Q, M] of the images of one block of queries."""
    in_axes = (0, 0, 0, 0, None if vectors is None else 0)

    def one(to_query, pairs, known, mask, vectors) -> jax.Array:
        return scores(to_query, pairs, mask, settings, vectors, known)

    return jax.vmap(one, in_axes)(to_query, pairs, known, mask, vectors)


def _unit(points: jax.Array) -> jax.Array:
    norms = jnp.linalg.norm(points, axis=1, keepdims=True)
    return points / jnp.where(norms > 0.0, norms, 1.0)
