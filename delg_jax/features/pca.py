"""PCA with whitening of local descriptors (the baseline of Table 1)."""

import pathlib
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax import workdir
from delg_jax.array_files import read_arrays
from delg_jax.errors import UserError
from delg_jax.models.pooling import l2_normalize


class Pca(NamedTuple):
    """A projection.

    Attributes:
      mean: float32 [C].
      matrix: float32 [C, D], eigenvectors times their share of whitening.
    """

    mean: np.ndarray
    matrix: np.ndarray


def fit(descriptors: np.ndarray, dim: int, whitening: float) -> Pca:
    """Fits PCA by the eigendecomposition of the covariance.

    Args:
      descriptors: float [M, C].
      dim: D, at most C.
      whitening: exponent share: 0 keeps variances, 0.5 divides by their fourth root, 1 whitens.

    Returns:
      Pca; each eigenvector's largest entry is positive.

    Raises:
      ValueError: if there are fewer descriptors than `dim`, or `dim` exceeds C.
    """
    if dim > min(descriptors.shape):
        raise ValueError(f"dim (={dim}) must not exceed descriptors.shape {descriptors.shape}")
    values = descriptors.astype(np.float64)
    mean = values.mean(axis=0)
    covariance = (values - mean[None, :]).T @ (values - mean[None, :]) / len(values)
    variances, vectors = np.linalg.eigh(covariance)
    variances, vectors = variances[::-1][:dim], vectors[:, ::-1][:, :dim]
    largest = vectors[np.argmax(np.abs(vectors), axis=0), np.arange(dim)]
    vectors = vectors * np.where(largest < 0, -1.0, 1.0)[None, :]
    floor = max(variances[0], 1e-30) * 1e-9
    matrix = vectors * np.maximum(variances, floor)[None, :] ** (-whitening / 2)
    return Pca(mean.astype(np.float32), matrix.astype(np.float32))


def project(descriptors: jax.Array, pca: Pca) -> jax.Array:
    """Centres and projects descriptors [..., C] and gives them unit length, [..., D]."""
    flat = descriptors.reshape(-1, descriptors.shape[-1])
    projected = (flat - jnp.asarray(pca.mean)[None, :]) @ jnp.asarray(pca.matrix)
    return l2_normalize(projected).reshape(*descriptors.shape[:-1], -1)


def save(pca: Pca, path: pathlib.Path) -> None:
    """Writes a projection as `.npz`, whole or not at all."""
    workdir.write_arrays(path, pca._asdict())


def load(path: pathlib.Path) -> Pca | None:
    """What `save` wrote; None if there is no file, a UserError if it is damaged."""
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
        pca = Pca(arrays["mean"], arrays["matrix"])
        if pca.matrix.ndim != 2 or pca.mean.shape != pca.matrix.shape[:1]:
            raise ValueError(f"shapes {pca.mean.shape} and {pca.matrix.shape}")
    except (OSError, ValueError, KeyError) as error:
        rule = f"must hold a mean and a matrix ({error}); extract again with --overwrite"
        raise UserError("feature store", str(path), rule) from error
    return pca
