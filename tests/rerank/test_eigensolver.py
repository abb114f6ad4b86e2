import numpy as np
import pytest

from delg_jax.rerank.eigensolver import leading, subspace_iteration


def with_values(rng, values):
    """A symmetric matrix with given eigenvalues, and its vectors."""
    vectors = np.linalg.qr(rng.normal(size=(len(values), len(values))))[0]
    return ((vectors * values) @ vectors.T).astype(np.float32), vectors


@pytest.mark.parametrize("solver", ["eigh", "subspace"])
@pytest.mark.parametrize("count", [1, 5, 12])
def test_equals_numpy(rng, solver, count):
    matrix = rng.normal(size=(40, 40)).astype(np.float32)
    matrix = matrix + matrix.T
    values, vectors = map(np.asarray, leading(matrix, count, solver))
    expected = np.linalg.eigvalsh(matrix.astype(float))[::-1][:count]
    np.testing.assert_allclose(values, expected, rtol=1e-4)
    np.testing.assert_allclose(matrix @ vectors, vectors * values, atol=2e-3)
    np.testing.assert_allclose(vectors.T @ vectors, np.eye(count), atol=1e-4)


def test_large_negative_values_do_not_win(rng):
    values = np.concatenate([[5, 4, 3, 2.5, 2, 1.5], np.linspace(0.5, -9, 94)])
    matrix, vectors = with_values(rng, values)
    found, columns = map(np.asarray, subspace_iteration(matrix, 4, spare=4))
    np.testing.assert_allclose(found, values[:4], rtol=1e-4)
    np.testing.assert_allclose(np.abs((vectors[:, :4] * columns).sum(axis=0)), 1, atol=1e-3)


def test_few_positive_values_are_found_among_many_wanted(rng):
    values = np.concatenate([[7, 3], np.zeros(38)])
    found = np.asarray(subspace_iteration(with_values(rng, values)[0], 10)[0])
    np.testing.assert_allclose(found, values[:10], atol=1e-4)


@pytest.mark.parametrize("value", [0.0, 1.0, -1.0])
def test_degenerate_matrices_stay_finite(value):
    for matrix in (np.full((9, 9), value, np.float32), value * np.eye(9, dtype=np.float32)):
        for part in subspace_iteration(matrix, 3, spare=2):
            assert np.isfinite(part).all()


def test_no_more_pairs_than_rows(rng):
    matrix = with_values(rng, np.arange(3.0))[0]
    for solver in ("eigh", "subspace"):
        values, vectors = leading(matrix, 8, solver)
        assert (values.shape, vectors.shape) == ((3,), (3, 3))


def test_unknown_solver_is_named():
    with pytest.raises(ValueError, match="'qr'.*eigh, subspace"):
        leading(np.eye(2, dtype=np.float32), 1, "qr")
