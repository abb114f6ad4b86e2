from functools import partial

import jax
import numpy as np
import pytest
from scipy.spatial.distance import cdist

from delg_jax.features.storage import encodings
from delg_jax.search import descriptor_similarity
from delg_jax.search.descriptor_similarity import HAMMING, hamming, sign_cosines

# Compiled as a whole, as in a search: each single operation would be a program of its own
binarize = jax.jit(descriptor_similarity.binarize)
cosines = jax.jit(descriptor_similarity.cosines, static_argnames=("hamming", "dimension"))


def signs(rng, *shape):
    return np.where(rng.random(shape) < 0.5, -1.0, 1.0).astype(np.float32)


def test_bits_by_hand():
    descriptor = np.array([0.5, -0.5, 0.0, 2.0, -1.0, -1.0, -1.0, 1e-9], np.float32)
    assert binarize(descriptor).tolist() == [0b10010001]
    assert binarize(descriptor[[0, 3, 1, *range(8)]]).tolist() == [0b11010010, 0b00100000]


@jax.jit
def distances_of_signs(sides):
    binarize = descriptor_similarity.binarize
    return [hamming(binarize(first), binarize(second)) for first, second in sides]


def test_equal_scipy_for_any_number_of_words(rng):
    dims = (0, 8, 24, 32, 40, 128)
    sides = [(signs(rng, 7, dim), signs(rng, 5, dim)) for dim in dims]
    for dim, (first, second), found in zip(dims, sides, distances_of_signs(sides), strict=True):
        expected = np.round(cdist(first, second, "hamming") * dim) if dim else np.zeros((7, 5))
        np.testing.assert_array_equal(found, expected, f"{dim} dimensions")


@partial(jax.jit, static_argnames="method")
def cosines_of_signs(sides, method):
    """With the dimension as an argument, and with that of the bytes."""
    found = []
    for first, second in sides:
        dim = first.shape[1]
        packed = [descriptor_similarity.binarize(side) for side in (first, second)]
        found.append((sign_cosines(*packed, method, dim), sign_cosines(*packed, method)))
    return found


def test_cosines_are_those_of_the_signs_by_both_methods(rng):
    dims = (1, 7, 8, 12, 40, 50, 128)
    sides = [(signs(rng, 6, dim), signs(rng, 9, dim)) for dim in dims]
    found = {method: cosines_of_signs(sides, method) for method in HAMMING}
    for number, (dim, (first, second)) in enumerate(zip(dims, sides, strict=True)):
        for method in HAMMING:
            of_dim, of_bytes = found[method][number]
            case = f"{dim} dimensions, {method}"
            np.testing.assert_allclose(
                of_dim, first @ second.T / dim, rtol=0, atol=1e-7, err_msg=case
            )
            if dim % 8 == 0:
                np.testing.assert_array_equal(of_dim, of_bytes, case)
    for one, other in zip(*map(jax.tree.leaves, found.values()), strict=True):
        np.testing.assert_array_equal(one, other)


def test_wrong_arguments_are_named():
    packed = np.zeros((1, 1), np.uint8)
    with pytest.raises(ValueError, match="`method`.*lookup"):
        sign_cosines(packed, packed, "lookup")


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


@pytest.mark.parametrize(
    ("encoding", "hamming"),
    [*((encoding, HAMMING[0]) for encoding in encodings.ENCODINGS), ("sign", HAMMING[1])],
)
def test_stored_codes_compare_like_their_vectors(rng, encoding, hamming):
    codes = [encodings.encode(unit(rng, count, 24), encoding) for count in (5, 7)]
    one, other = (vectors_of(side, encoding) for side in codes)
    values = [side.values for side in codes]
    descriptor_similarity.check_kinds(*values)
    found = cosines(*values, hamming)
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, one @ other.T, atol=1e-6)


def test_the_length_of_bytes_does_not_matter(rng):
    codes = (20 * unit(rng, 3, 8)).round().astype(np.int8)
    twice = cosines(2 * codes, codes)
    np.testing.assert_allclose(twice, cosines(codes, codes), atol=1e-6)


def test_padding_of_bytes_has_no_cosine():
    zeros, ones = np.zeros((3, 8), np.int8), np.ones((3, 8), np.int8)
    np.testing.assert_array_equal(cosines(zeros, ones), np.zeros((3, 3)))


@pytest.mark.parametrize("types", [("float32", "uint8"), ("int8", "float16"), ("int32", "int32")])
def test_two_kinds_are_refused(types):
    one, other = (np.zeros((2, 8), kind) for kind in types)
    with pytest.raises(ValueError, match=f"`descriptors`.*{types[0]}, {types[1]}"):
        descriptor_similarity.check_kinds(one, other)
