import jax.numpy as jnp
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from delg_jax.features.storage import encodings
from delg_jax.search import descriptor_similarity
from delg_jax.search.descriptor_similarity import HAMMING, binarize, hamming, sign_cosines


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
    found = sign_cosines(binarize(first), binarize(second), method, dim)
    if dim % 8 == 0:
        np.testing.assert_array_equal(
            found, sign_cosines(binarize(first), binarize(second), method)
        )
    np.testing.assert_allclose(found, first @ second.T / dim, rtol=0, atol=1e-7)


def test_both_methods_give_the_same_numbers(rng):
    first, second = (binarize(signs(rng, 20, 128)) for _ in range(2))
    np.testing.assert_array_equal(
        sign_cosines(first, second, "popcount"), sign_cosines(first, second, "products")
    )


def test_wrong_arguments_are_named(rng):
    with pytest.raises(ValueError, match="`method`.*lookup"):
        sign_cosines(binarize(signs(rng, 1, 8)), binarize(signs(rng, 1, 8)), "lookup")


def vectors_of(codes, encoding):
    """The vectors that codes stand for; without the rounding to half precision of `decode`."""
    if encoding.startswith("float"):
        return codes.values.astype(np.float64)
    vectors = codes.values if encoding == "int8" else encodings.decode(codes, encoding)
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=-1, keepdims=True), 1e-9)


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


@pytest.mark.parametrize("hamming", HAMMING)
@pytest.mark.parametrize("encoding", encodings.ENCODINGS)
def test_stored_codes_compare_like_their_vectors(rng, encoding, hamming):
    codes = [encodings.encode(unit(rng, count, 24), encoding) for count in (5, 7)]
    one, other = (vectors_of(side, encoding) for side in codes)
    values = [jnp.asarray(side.values) for side in codes]
    descriptor_similarity.check_kinds(*values)
    found = descriptor_similarity.cosines(*values, hamming)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one @ other.T, atol=1e-6)


def test_the_length_of_bytes_does_not_matter(rng):
    codes = (20 * unit(rng, 3, 8)).round().astype(np.int8)
    twice = descriptor_similarity.cosines(jnp.asarray(2 * codes), jnp.asarray(codes))
    np.testing.assert_allclose(
        twice, descriptor_similarity.cosines(jnp.asarray(codes), jnp.asarray(codes)), atol=1e-6
    )


def test_padding_of_bytes_has_no_cosine():
    zeros, ones = np.zeros((1, 4), np.int8), np.ones((1, 4), np.int8)
    assert descriptor_similarity.cosines(jnp.asarray(zeros), jnp.asarray(ones)).tolist() == [[0]]


@pytest.mark.parametrize("types", [("float32", "uint8"), ("int8", "float16"), ("int32", "int32")])
def test_two_kinds_are_refused(types):
    one, other = (np.zeros((2, 8), kind) for kind in types)
    with pytest.raises(ValueError, match=f"`descriptors`.*{types[0]}, {types[1]}"):
        descriptor_similarity.check_kinds(one, other)
