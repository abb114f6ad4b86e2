import jax.numpy as jnp
import numpy as np
import pytest

from delg_jax.features.storage import encodings
from delg_jax.search import descriptor_similarity
from delg_jax.search.binary import HAMMING


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
