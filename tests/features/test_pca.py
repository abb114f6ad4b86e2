import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features import pca


@pytest.fixture
def descriptors(rng):
    """Correlated descriptors [200, 6] with distinct variances."""
    return (rng.normal(size=(200, 6)) * [5, 3, 2, 1, 0.5, 0.2]) @ rng.normal(size=(6, 6)) + 4


def svd(descriptors):
    centred = descriptors - descriptors.mean(axis=0)
    _, singular, rows = np.linalg.svd(centred, full_matrices=False)
    return rows.T, singular**2 / len(descriptors)


@pytest.mark.parametrize("whitening", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("dim", [1, 4, 6])
def test_equals_the_singular_value_decomposition(descriptors, dim, whitening):
    vectors, variances = svd(descriptors)
    found = pca.fit(descriptors, dim, whitening)
    expected = vectors[:, :dim] * variances[:dim] ** (-whitening / 2)
    signs = np.sign((expected * found.matrix).sum(axis=0))
    np.testing.assert_allclose(found.matrix, expected * signs, rtol=1e-3, atol=1e-4)
    np.testing.assert_allclose(found.mean, descriptors.mean(axis=0), rtol=1e-5)


@pytest.mark.parametrize(("whitening", "power"), [(0.0, 1.0), (0.5, 0.5), (1.0, 0.0)])
def test_whitening_flattens_variances_by_its_share(descriptors, whitening, power):
    found = pca.fit(descriptors, 6, whitening)
    projected = (descriptors - found.mean) @ found.matrix
    np.testing.assert_allclose(projected.var(axis=0), svd(descriptors)[1] ** power, rtol=1e-3)
    covariance = np.cov(projected.T)
    assert np.abs(covariance - np.diag(np.diag(covariance))).max() < 1e-2 * covariance.max()


def test_signs_are_fixed_by_the_largest_entry(descriptors):
    matrix = pca.fit(descriptors, 6, 0.0).matrix
    assert (matrix[np.abs(matrix).argmax(axis=0), np.arange(6)] > 0).all()
    shuffled = pca.fit(descriptors[::-1], 6, 0.0).matrix
    np.testing.assert_allclose(shuffled, matrix, atol=1e-4)


def test_a_dimension_without_variance_stays_finite():
    flat = np.array([[1.0, 0.0], [2.0, 0.0], [4.0, 0.0]])
    assert np.isfinite(pca.fit(flat, 2, 1.0).matrix).all()


@pytest.mark.parametrize(("shape", "dim"), [((3, 6), 4), ((9, 4), 5), ((0, 4), 1)])
def test_too_many_dimensions_are_refused(rng, shape, dim):
    with pytest.raises(ValueError, match=rf"dim \(={dim}\)"):
        pca.fit(rng.normal(size=shape), dim, 0.5)


def test_projection_centres_and_normalises(descriptors):
    found = pca.fit(descriptors, 3, 0.5)
    projected = np.asarray(pca.project(descriptors.astype(np.float32).reshape(4, 50, 6), found))
    expected = (descriptors - found.mean) @ found.matrix
    expected /= np.linalg.norm(expected, axis=1, keepdims=True)
    assert projected.shape == (4, 50, 3)
    np.testing.assert_allclose(projected.reshape(200, 3), expected, atol=1e-4)


def test_a_file_says_what_decided_it(tmp_path, descriptors):
    wanted = pca.fit(descriptors, 3, 0.5)
    pca.save(wanted, tmp_path / "pca.npz", ["a", "b\n", "ü"])
    assert pca.equal(pca.load(tmp_path / "pca.npz"), wanted)
    assert pca.fitted_on(tmp_path / "pca.npz") == ["a", "b\n", "ü"]
    pca.save(wanted, tmp_path / "pca.npz")
    assert pca.fitted_on(tmp_path / "pca.npz") == []
    assert pca.fitted_on(tmp_path / "none.npz") == []
    assert pca.load(tmp_path / "none.npz") is None


def test_a_file_of_before_is_read(tmp_path, descriptors):
    wanted = pca.fit(descriptors, 3, 0.5)
    np.savez(tmp_path / "pca.npz", **wanted._asdict())
    assert pca.equal(pca.load(tmp_path / "pca.npz"), wanted)
    assert pca.fitted_on(tmp_path / "pca.npz") == []


def test_no_flipped_bit_goes_unnoticed(tmp_path, descriptors):
    path = tmp_path / "pca.npz"
    wanted = pca.fit(descriptors, 3, 0.5)
    pca.save(wanted, path, ["a", "b"])
    whole = path.read_bytes()
    refused = 0
    for place in range(0, len(whole), 7):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 4]) + whole[place + 1 :])
        try:
            assert pca.equal(pca.load(path), wanted)
        except UserError:
            refused += 1
    assert refused > len(whole) // 14


def test_numbers_that_differ_from_their_checksum_are_refused(tmp_path, descriptors):
    path = tmp_path / "pca.npz"
    pca.save(pca.fit(descriptors, 3, 0.5), path)
    with np.load(path) as file:
        arrays = dict(file)
    np.savez(path, **{**arrays, "mean": arrays["mean"] + 1})
    with pytest.raises(UserError, match=r"pca\.npz.*checksum.*--overwrite"):
        pca.load(path)


def test_projections_are_equal_if_all_numbers_are(descriptors):
    one = pca.fit(descriptors, 3, 0.5)
    assert pca.equal(one, pca.Pca(*(array.copy() for array in one)))
    assert not pca.equal(one, one._replace(mean=one.mean + 1))
    assert not pca.equal(one, None)
    assert pca.equal(None, None)
