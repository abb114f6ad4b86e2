"""Re-ranking by vectors made of local similarities.

Aiger et al., "local-to-global" retrieval (2025): a query and the short list of its local search
are embedded by multidimensional scaling, and the rows of the embedding are compared like global
descriptors. Two further methods make vectors, or scores, of the similarities without an embedding,
see `profiles`.
"""

import dataclasses
from functools import cached_property, partial

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax.errors import WrongField, require_least
from delg_jax.rerank import superglobal
from delg_jax.rerank.distances import (
    FORMS,
    LEAST_SIMILARITY,
    MISSING,
    above,
    distances,
    kernel_scores,
    level,
    profiles,
    refine,
    scaled_by_neighbours,
    unit,
)
from delg_jax.rerank.mds_solvers import classical_mds, landmark_mds, smacof
from delg_jax.search.batching import starts
from delg_jax.search.graph import PairGraph, SimilarityGraph

METHODS = ("classical", "smacof", "landmark", "profile", "kernel")
_WITHOUT_EMBEDDING = ("profile", "kernel")
GRAPHS = ("stored", "on_the_fly")

Array = jax.Array | np.ndarray

_HIGHEST = jax.lax.Precision.HIGHEST


@dataclasses.dataclass(frozen=True)
class ScoreSettings:
    """How a short list is embedded and scored: what the compiled functions read.

    Attributes:
      dim: dimension of the embedding; a shorter list leaves columns zero. Of method profile, the
        similarities kept of each image; kernel has none.
      distance: form of the distance, one of `distances.FORMS`; profile and kernel use similarities.
      contrast: similarity that counts as 1; different photographs are far below 1. With
        `scale_neighbours`, the scaled similarity that does.
      scale_neighbours: similarities are divided by the scales of both images first, see
        `distances.scales`: the mean over this many most similar images of the list. Contrast and
        background then hold for every network, kernel and data set, and the local similarity in
        the score is divided by that of the first image, which is not clipped. 0 = not scaled.
      background: similarity that counts as 0; unrelated photographs are above 0.
      power: exponent of the distance `power`.
      missing: how a missing similarity is replaced, one of `distances.MISSING`.
      method: classical; smacof, which starts from classical; landmark, for long short lists;
        profile, the cosine of the rows of similarities; or kernel, `distances.kernel_scores`.
      landmarks: the query and this many first images are the landmarks.
      iterations: of smacof.
      missing_weight: weight of a missing pair in smacof; other pairs have 1.
      concat_weight: w of [sqrt(w) embedding, sqrt(1 - w) global descriptor], with descriptors.
      neighbours: of an image in a SuperGlobal step on the vectors, with mean pooling; 0 = no step.
        Of method profile, images whose vectors are added to that of an image and of the query.
      beta: weight of a neighbour in that step.
      weight: of the vectors in the score; 1 - weight is that of the local similarity.
    """

    dim: int = 128
    distance: str = "chord"
    contrast: float = 1.0
    scale_neighbours: int = 0
    background: float = 0.0
    power: float = 1.0
    missing: str = "zero"
    method: str = "classical"
    landmarks: int = 200
    iterations: int = 30
    missing_weight: float = 0.1
    concat_weight: float = 0.5
    neighbours: int = 0
    beta: float = 0.3
    weight: float = 0.3

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        for name, known in (("distance", FORMS), ("missing", MISSING), ("method", METHODS)):
            _require_known(self, name, known)
        require_least(self, 0, "background")
        if self.contrast <= self.background:
            raise WrongField(
                "contrast", self.contrast, f"must be above `background` (={self.background})"
            )
        if not 0 < self.missing_weight <= 1:
            raise WrongField("missing_weight", self.missing_weight, "must lie in (0, 1]")
        for name in ("weight", "concat_weight"):
            if not 0 <= getattr(self, name) <= 1:
                raise WrongField(name, getattr(self, name), "must lie in [0, 1]")
        require_least(self, 1, "dim", "landmarks")
        require_least(self, 0, "power", "beta", "iterations", "neighbours", "scale_neighbours")


@dataclasses.dataclass(frozen=True)
class MdsSettings(ScoreSettings):
    """Which short lists are scored, and how; `config.rerank.mds` has the same names.

    Attributes:
      short_list: images to re-rank, M.
      background_rank: rank in an image's own list whose similarity is subtracted as its background
        first; 0 = none; the last rank of a shorter list. This corrects images without texture,
        which resemble all others.
      keep_first: first images of the local search that keep their places, with the best score.
      query_block: queries embedded at a time.
      graph: where similarities between database images come from: stored for the best neighbours of
        each image, or computed on_the_fly for all pairs of a short list.
    """

    short_list: int = 400
    background_rank: int = 0
    keep_first: int = 0
    query_block: int = 8
    graph: str = "stored"

    def __post_init__(self) -> None:
        """Raises a WrongField for the first that is wrong."""
        super().__post_init__()
        _require_known(self, "graph", GRAPHS)
        require_least(self, 1, "short_list", "query_block")
        require_least(self, 0, "background_rank", "keep_first")

    @cached_property
    def scoring(self) -> ScoreSettings:
        """The settings that are compiled: another value of a field of this class compiles none."""
        names = (field.name for field in dataclasses.fields(ScoreSettings))
        return ScoreSettings(**{name: getattr(self, name) for name in names})


def _require_known(settings: ScoreSettings, name: str, known: tuple[str, ...]) -> None:
    """Raises a WrongField unless the field of that name is one of `known`."""
    value = getattr(settings, name)
    if value not in known:
        raise WrongField(name, value, f"must be one of {', '.join(known)}")


def rerank(
    rankings: Array,
    similarities: Array,
    graph: SimilarityGraph | PairGraph,
    settings: MdsSettings,
    query_globals: Array | None = None,
    database_globals: Array | None = None,
) -> np.ndarray:
    """Re-ranks the short list of each query; later images keep their order.

    Args:
      rankings: int [Q, N], result of the local search, best first.
      similarities: float [Q, N], local similarities in the order of `rankings`; minus infinity for
        skipped images, which keep this score.
      graph: similarities among the database images.
      settings: see `MdsSettings`; memory holds the similarities of `query_block` short lists.
      query_globals: float [Q, D], unit norm; None for no global descriptors.
      database_globals: float [N, D], unit norm; an array or a memory map.

    Returns:
      The new rankings, int [Q, N]; equal scores keep the order of the search.

    Raises:
      ValueError: if only one side has global descriptors.
    """
    found = list_scores(rankings, similarities, graph, settings, query_globals, database_globals)
    rankings, count = np.array(rankings), found.shape[1]
    order = np.argsort(-found, axis=1, kind="stable")
    rankings[:, :count] = np.take_along_axis(rankings[:, :count], order, axis=1)
    return rankings


def list_scores(
    rankings: Array,
    similarities: Array,
    graph: SimilarityGraph | PairGraph,
    settings: MdsSettings,
    query_globals: Array | None = None,
    database_globals: Array | None = None,
) -> np.ndarray:
    """The scores that `rerank` sorts by.

    Args:
      rankings: as of `rerank`, like the other arguments.
      similarities: float [Q, N].
      graph: similarities among the database images.
      settings: see `MdsSettings`.
      query_globals: float [Q, D], or None.
      database_globals: float [N, D], or None.

    Returns:
      float32 [Q, M], in the order of `rankings`.

    Raises:
      ValueError: if only one side has global descriptors.
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
        # The last block is padded with its last query, so that one shape is compiled
        rows = np.minimum(np.arange(start, start + block), len(heads) - 1)
        pairs, known = map(np.stack, zip(*map(graph.dense, heads[rows]), strict=True))
        if rank:
            pairs = above(pairs, graph.at_rank(heads[rows], rank))
        vectors = None
        if query_globals is not None and database_globals is not None:
            images = [database_globals[head] for head in heads[rows]]
            vectors = np.concatenate([query_globals[rows][:, None], np.stack(images)], axis=1)
        found[rows] = _block_scores(
            to_query[rows], pairs, known, present[rows], settings.scoring, vectors
        )
    kept = found[:, : settings.keep_first]
    kept[:] = np.where(kept > -np.inf, found.max(axis=1, keepdims=True), kept)
    return found


@partial(jax.jit, static_argnames="settings")
def _block_scores(
    to_query: jax.Array,
    pairs: jax.Array,
    known: jax.Array,
    mask: jax.Array,
    settings: ScoreSettings,
    vectors: jax.Array | None,
) -> jax.Array:
    """Scores [Q, M] of one block of queries."""
    in_axes = (0, 0, 0, 0, None if vectors is None else 0)

    def scores_of_query(to_query, pairs, known, mask, vectors) -> jax.Array:
        return scores(to_query, pairs, mask, settings, vectors, known)

    return jax.vmap(scores_of_query, in_axes)(to_query, pairs, known, mask, vectors)


@partial(jax.jit, static_argnames="settings")
def scores(
    query_similarities: jax.Array,
    pair_similarities: jax.Array,
    mask: jax.Array,
    settings: ScoreSettings,
    global_descriptors: jax.Array | None = None,
    known: jax.Array | None = None,
) -> jax.Array:
    """Scores the short list of a query by embedding and local similarity together.

    The score is weight * v(query, image) + (1 - weight) * s(query, image), where s is scaled from
    background (0) to contrast (1), or with `scale_neighbours` to the largest of the list. v is the
    cosine between rows of the joint embedding of the query and its short list; with global
    descriptors, that of the weighted concatenations; with neighbours, the SuperGlobal score of
    these rows. SuperGlobal then pools by the mean, because the elementwise maximum changes with a
    rotation, and an embedding is defined up to a rotation.

    Args:
      query_similarities: float [M], s(query, image), used for both directions.
      pair_similarities: float [M, M], s(image, image).
      mask: bool [M], False where there is no image, which was skipped.
      settings: see `ScoreSettings`.
      global_descriptors: float [1 + M, D], unit norm, the query's first; None for none.
      known: bool [M, M], False where a pair's similarity is missing; None for all True. Those of
        the query are never missing.

    Returns:
      float32 [M], minus infinity outside the mask.
    """
    matrix = jnp.pad(pair_similarities, ((1, 0), (1, 0)))
    matrix = matrix.at[0, 1:].set(query_similarities).at[1:, 0].set(query_similarities)
    if known is not None:
        known = jnp.pad(known, ((1, 0), (1, 0)), constant_values=True)
    images = jnp.pad(mask, (1, 0), constant_values=True)
    if settings.scale_neighbours:
        matrix = scaled_by_neighbours(matrix, images, settings.scale_neighbours, known)
        first = jnp.where(mask, query_similarities, 0.0).max()
        local = jnp.maximum(query_similarities, 0.0) / jnp.maximum(first, LEAST_SIMILARITY)
    else:
        local = level(query_similarities, settings.contrast, settings.background)
    if settings.method in _WITHOUT_EMBEDDING:
        scaled = _levelled(matrix, images, settings, known)
        compare = _compare_profiles if settings.method == "profile" else _compare_by_kernel
        vectors = compare(scaled, settings, global_descriptors)
        score = settings.weight * vectors + (1.0 - settings.weight) * local
        return jnp.where(mask, score, -jnp.inf)
    points = unit(embed(matrix, images, settings, known))
    if global_descriptors is not None:
        points = _beside(points, global_descriptors, settings.concat_weight)
    if settings.neighbours:
        vectors = superglobal.scores(
            points[0], points[1:], settings.neighbours, settings.beta, mask, pooling="mean"
        )
        vectors = jnp.where(mask, vectors, 0.0)
    else:
        vectors = (points[1:] * points[:1]).sum(axis=1)
    score = settings.weight * vectors + (1.0 - settings.weight) * local
    return jnp.where(mask, score, -jnp.inf)


def _levelled(
    matrix: jax.Array, images: jax.Array, settings: ScoreSettings, known: jax.Array | None
) -> jax.Array:
    """Symmetric similarities [n, n] in [0, 1] with a diagonal of 1; zeros on padding."""
    present = images[:, None] & images[None, :]
    known = present if known is None else present & known
    between = distances(
        matrix,
        "complement",
        settings.contrast,
        settings.background,
        missing=settings.missing,
        known=known,
    )
    return jnp.where(present, 1.0 - between, 0.0)


def _compare_profiles(
    scaled: jax.Array, settings: ScoreSettings, global_descriptors: jax.Array | None
) -> jax.Array:
    """Cosines [M] of the refined profiles of the images with that of the query."""
    points = profiles(scaled, settings.dim)
    if global_descriptors is not None:
        points = _beside(points, global_descriptors, settings.concat_weight)
    points = refine(points, scaled, settings.neighbours, settings.beta)
    return (points[1:] * points[:1]).sum(axis=1)


def _compare_by_kernel(
    scaled: jax.Array, settings: ScoreSettings, global_descriptors: jax.Array | None
) -> jax.Array:
    """Scores [M] of `distances.kernel_scores`."""
    if global_descriptors is not None:
        share = settings.concat_weight
        products = jnp.matmul(global_descriptors, global_descriptors.T, precision=_HIGHEST)
        present = jnp.diagonal(scaled) > 0.0
        products = jnp.where(present[:, None] & present[None, :], products, 0.0)
        scaled = share * scaled + (1.0 - share) * products
    return kernel_scores(scaled, settings.neighbours, settings.beta)


def _beside(points: jax.Array, global_descriptors: jax.Array, share: float) -> jax.Array:
    """Concatenations [n, d + D] whose products are those of both sides, weighted by the share."""
    return jnp.concatenate([share**0.5 * points, (1.0 - share) ** 0.5 * global_descriptors], axis=1)


@partial(jax.jit, static_argnames="settings")
def embed(
    similarities: jax.Array,
    mask: jax.Array,
    settings: ScoreSettings,
    known: jax.Array | None = None,
) -> jax.Array:
    """Embeds images by their similarities; see `ScoreSettings`.

    Args:
      similarities: float [n, n]; the diagonal is not read.
      mask: bool [n], False on rows without an image.
      settings: see `ScoreSettings`.
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
        return landmark_mds(between[: settings.landmarks + 1], settings.dim, mask)
    points = classical_mds(between, settings.dim, mask)
    if settings.method == "smacof":
        weights = jnp.where(known | known.T, 1.0, settings.missing_weight)
        weights = jnp.where(present, weights, 0.0)
        points = smacof(between, weights, points, settings.iterations)
    return points
