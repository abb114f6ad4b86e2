"""Vectors and scores of images from their similarities alone: profiles, and refinement by kernels.

Neither has a basis: no eigenvectors, and nothing that depends on the sign or order of dimensions.
Of equal similarities all or none are kept, so that nothing depends on the order of the images.
"""

from functools import partial

import jax
import jax.numpy as jnp

from delg_jax.rerank.distances import kth_largest

_HIGHEST = jax.lax.Precision.HIGHEST


@partial(jax.jit, static_argnames="count")
def profiles(similarities: jax.Array, count: int) -> jax.Array:
    """The similarities of each image to its most similar images, as a vector of unit norm.

    Two images are alike if the same images are like them. This holds for images that share no
    matches with each other, and suppresses those that a few wrong matches connect.

    Args:
      similarities: float [n, n], symmetric, in [0, 1], with a diagonal of 1 for images and rows and
        columns of zeros for padding.
      count: entries kept of each row, itself included, and those equal to the last; the others
        are 0.

    Returns:
      float32 [n, n], one profile in each row; zeros on padding.
    """
    return unit(_largest(similarities, count))


@partial(jax.jit, static_argnames="count")
def refine(vectors: jax.Array, similarities: jax.Array, count: int, beta: float) -> jax.Array:
    """Adds to each vector those of its most similar images, x_i + sum_j b s_ij x_j, of unit norm.

    Args:
      vectors: float [n, D].
      similarities: float [n, n], as of `profiles`.
      count: other images that are added to each, and those equal to the last.
      beta: b.

    Returns:
      float32 [n, D]; zeros on padding.
    """
    weights = beta * _largest(_others(similarities), count)
    return unit(vectors + jnp.matmul(weights, vectors, precision=_HIGHEST))


@partial(jax.jit, static_argnames="count")
def kernel_scores(similarities: jax.Array, count: int, beta: float) -> jax.Array:
    """SuperGlobal's refinement written in similarities; see `superglobal.scores`.

    With S the similarities of the list and s those of the query, A has the rows e_i + sum_j b s_ij
    e_j over the `count` images j that are most similar to i, each divided by its norm a' S a. Then
    first = A s, c is the mean of the rows of A of the count + 1 images with the largest first,
    second = A S c / sqrt(c' S c), and the score is the mean of first and second.

    Args:
      similarities: float [1 + M, 1 + M], as of `profiles`; the query is row and column 0.
      count: neighbours that refine an image, and those equal to the last.
      beta: b.

    Returns:
      float32 [M].
    """
    to_query, pairs = similarities[0, 1:], similarities[1:, 1:]
    steps = jnp.eye(len(pairs)) + beta * _largest(_others(pairs), count)
    products = jnp.matmul(steps, pairs, precision=_HIGHEST)
    norms = jnp.sqrt(jnp.maximum((products * steps).sum(axis=1), 0.0))
    scale = jnp.where(norms > 0.0, 1.0 / jnp.where(norms > 0.0, norms, 1.0), 0.0)
    first = scale * jnp.matmul(steps, to_query, precision=_HIGHEST)
    best = first >= jax.lax.top_k(first, min(count + 1, len(first)))[0][-1]
    centre = jnp.matmul(best * scale, steps, precision=_HIGHEST)
    toward = jnp.matmul(pairs, centre, precision=_HIGHEST)
    length = jnp.sqrt(jnp.maximum((centre * toward).sum(), 0.0))
    second = scale * jnp.matmul(steps, toward, precision=_HIGHEST)
    return 0.5 * (first + second / jnp.where(length > 0.0, length, 1.0))


def unit(vectors: jax.Array) -> jax.Array:
    """Rows of unit norm; zeros stay."""
    norms = jnp.linalg.norm(vectors, axis=1, keepdims=True)
    return vectors / jnp.where(norms > 0.0, norms, 1.0)


def _others(similarities: jax.Array) -> jax.Array:
    """Similarities [n, n] with a diagonal of 0."""
    return jnp.where(jnp.eye(len(similarities), dtype=bool), 0.0, similarities)


def _largest(similarities: jax.Array, count: int) -> jax.Array:
    """The `count` largest of each row [n, n], and those equal to the last; 0 for the others."""
    if count == 0:
        return jnp.zeros_like(similarities)
    similarities = jnp.maximum(similarities, 0.0)
    least = kth_largest(similarities, min(count, len(similarities)))
    return jnp.where(similarities >= least[:, None], similarities, 0.0)
