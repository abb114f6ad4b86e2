import numpy as np
import pytest
from scipy.spatial.distance import cdist

from delg_jax.search.binary import HAMMING, binarize, cosines, hamming


def signs(rng, *shape):
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)


def test_bits_by_hand():
    descriptor = np.array([0.5, -0.5, 0.0, 2.0, -1.0, -1.0, -1.0, 1e-9], np.float32)
    assert binarize(descriptor).tolist() == [0b10010001]
    assert binarize(descriptor[[0, 3, 1, *range(8)]]).tolist() == [0b11010010, 0b00100000]


@pytest.mark.parametrize("dim", [0, 8, 24, 32, 40, 128])
def test_equal_scipy_for_any_number_of_words(rng, dim):
    first, second = signs(rng, 7, dim), signs(rng, 5, dim)
    expected = np.round(cdist(first, second, "hamming") * dim) if dim else np.zeros((7, 5))
    np.testing.assert_array_equal(hamming(binarize(first), binarize(second)), expected)


@pytest.mark.parametrize("method", HAMMING)
@pytest.mark.parametrize("dim", [1, 7, 8, 12, 40, 50, 128])
def test_cosines_are_those_of_the_signs(rng, dim, method):
    first, second = signs(rng, 6, dim), signs(rng, 9, dim)
    found = cosines(binarize(first), binarize(second), method, dim)
    if dim % 8 == 0:
        np.testing.assert_array_equal(found, cosines(binarize(first), binarize(second), method))
    np.testing.assert_allclose(found, first @ second.T / dim, rtol=0, atol=1e-7)


def test_both_methods_give_the_same_numbers(rng):
    first, second = (binarize(signs(rng, 20, 128)) for _ in range(2))
    np.testing.assert_array_equal(
        cosines(first, second, "popcount"), cosines(first, second, "products")
    )


def test_wrong_arguments_are_named(rng):
    with pytest.raises(ValueError, match="`method`.*lookup"):
        cosines(binarize(signs(rng, 1, 8)), binarize(signs(rng, 1, 8)), "lookup")
