"""PCA with whitening of local descriptors (the baseline of Table 1)."""

import hashlib
import pathlib
from collections.abc import Mapping, Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from delg_jax import system_errors, workdir
from delg_jax.array_files import read_arrays
from delg_jax.errors import UserError
from delg_jax.models.heads import l2_normalize

_NAMES, _CHECKSUM = "fitted_on", "checksum"  # arrays of the file beside those of `Pca`


class Pca(NamedTuple):
    """A projection.

    Attributes:
      mean: float32 [C].
      matrix: float32 [C, D], eigenvectors scaled by whitening.
    """

    mean: np.ndarray
    matrix: np.ndarray


def fit(descriptors: np.ndarray, dim: int, whitening: float) -> Pca:
    """Fits PCA by the eigendecomposition of the covariance.

    Args:
      descriptors: float [M, C].
      dim: D, at most C.
      whitening: each dimension is divided by variance ** (whitening / 2): 0 keeps variances, 1
        whitens.

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
    """Centres, projects and normalises descriptors, [..., C] to [..., D]."""
    flat = descriptors.reshape(-1, descriptors.shape[-1])
    projected = (flat - jnp.asarray(pca.mean)[None, :]) @ jnp.asarray(pca.matrix)
    return l2_normalize(projected).reshape(*descriptors.shape[:-1], -1)


def equal(one: Pca | None, other: Pca | None) -> bool:
    """Whether two projections are equal, or both None."""
    if one is None or other is None:
        return one is other
    return all(np.array_equal(a, b) for a, b in zip(one, other, strict=True))


def save(pca: Pca, path: pathlib.Path, fitted_on: Sequence[str] = ()) -> None:
    """Writes a projection atomically as `.npz` with a checksum.

    Args:
      pca: the projection.
      path: of the file.
      fitted_on: names of the images that it was fitted on.
    """
    names = np.frombuffer("\0".join(fitted_on).encode(), np.uint8)
    arrays = {**pca._asdict(), _NAMES: names}
    workdir.write_arrays(path, {**arrays, _CHECKSUM: _checksum(arrays)})


def load(path: pathlib.Path) -> Pca | None:
    """Reads a projection; None if there is no file, a UserError if it is damaged."""
    arrays = _read(path)
    return None if arrays is None else Pca(arrays["mean"], arrays["matrix"])


def fitted_on(path: pathlib.Path) -> list[str]:
    """Names of the images that a projection was fitted on; empty if unknown."""
    arrays = _read(path)
    if arrays is None or not arrays.get(_NAMES, np.zeros(0)).size:
        return []
    return arrays[_NAMES].tobytes().decode().split("\0")


def _read(path: pathlib.Path) -> dict[str, np.ndarray] | None:
    if not path.is_file():
        return None
    try:
        arrays = read_arrays(path)
        mean, matrix = arrays["mean"], arrays["matrix"]
        if matrix.ndim != 2 or mean.shape != matrix.shape[:1]:
            raise ValueError(f"shapes {mean.shape} and {matrix.shape}")
        checksum = arrays.pop(_CHECKSUM, None)  # earlier versions wrote none
        if checksum is not None and not np.array_equal(checksum, _checksum(arrays)):
            raise ValueError("it differs from its checksum")
    except (OSError, ValueError, KeyError) as error:
        system_errors.reraise(error)
        rule = f"must hold a mean and a matrix ({error}); --overwrite extracts again"
        raise UserError("feature store", str(path), rule) from error
    return arrays


def _checksum(arrays: Mapping[str, np.ndarray]) -> np.ndarray:
    """Checksum of names, types, shapes and bytes, uint8 [16]."""
    found = hashlib.blake2b(digest_size=16)
    for name, array in sorted(arrays.items()):
        found.update(repr((name, array.dtype.str, array.shape)).encode() + array.tobytes())
    return np.frombuffer(found.digest(), np.uint8)
