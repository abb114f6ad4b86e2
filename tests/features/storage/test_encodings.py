import numpy as np
import pytest

from delg_jax.errors import UserError
from delg_jax.features.storage.encodings import ENCODINGS, Codes, decode, encode


def rounded(vectors, encoding):
    return decode(encode(vectors, encoding), encoding)


def unit(rng, *shape):
    vectors = rng.normal(size=shape).astype(np.float32)
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def test_int8_by_hand():
    codes = encode(np.array([[0.6, -0.8, 0.0], [1.0, 0.0, 0.0]], np.float32), "int8")
    assert codes.values.dtype == np.int8
    assert codes.scales.dtype == np.float16
    # 0.8 / 127 = 0.0062992 lies between the halves 1651 and 1652 * 2^-18; the upper one counts.
    # So it is with 1 / 127 = 0.0078740 and 1032 and 1033 * 2^-17
    assert codes.scales.tolist() == [1652 * 2.0**-18, 1033 * 2.0**-17]
    assert codes.values.tolist() == [[95, -127, 0], [127, 0, 0]]
    assert decode(codes, "int8").dtype == np.float16


def test_signs_by_hand():
    vector = np.array([0.1, -0.1, 0.0, 2.0, -3.0, 0.5, 0.5, 0.5, *[-1.0] * 7, 1.0], np.float32)
    codes = encode(vector, "sign")
    assert codes.scales is None
    assert codes.values.tolist() == [0b10010111, 1]  # zero counts as negative
    wanted = np.where(vector > 0, 0.25, -0.25)  # 1 / sqrt(16)
    np.testing.assert_array_equal(decode(codes, "sign"), wanted)


@pytest.mark.parametrize("encoding", ["float32", "float16"])
def test_floats_are_rounded_to_their_type(rng, encoding):
    vectors = unit(rng, 3, 5)
    np.testing.assert_array_equal(rounded(vectors, encoding), vectors.astype(encoding))
    assert encode(vectors, encoding).values.dtype == encoding


@pytest.mark.parametrize("shape", [(1, 1), (50, 3), (20, 128), (2, 3, 4, 7)])
@pytest.mark.parametrize("size", [1.0, 1e-3, 3e-6, 40.0])
def test_int8_is_off_by_half_a_step_at_most(rng, shape, size):
    vectors = size * unit(rng, *shape)
    codes = encode(vectors, "int8")
    steps = codes.scales.astype(np.float64)[..., None]
    assert (np.abs(codes.values * steps - vectors) <= steps * (0.5 + 1e-5)).all()
    assert np.abs(codes.values.astype(int)).max() <= 127
    # Decoding to half precision adds half a unit of its eleven bits, or of the smallest half
    slack = np.maximum(np.abs(vectors) * 2.0**-10, 2.0**-25)
    error = np.abs(decode(codes, "int8").astype(np.float64) - vectors)
    assert (error <= steps * (0.5 + 1e-5) + slack).all()


def test_int8_never_overflows(rng):
    # Every half between 2^-8 and 2^-7, times 127 and a little more or less
    largest = 127 * np.linspace(2.0**-8, 2.0**-7, 5001, dtype=np.float32)
    vectors = np.stack([largest, -largest], axis=1)
    values = encode(vectors, "int8").values.astype(int)
    assert values.max() == 127
    assert values.min() == -127
    np.testing.assert_array_equal(values[:, 0], -values[:, 1])
    assert values[:, 0].min() >= 126


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_zero_vectors_stay_finite(encoding):
    found = rounded(np.zeros((2, 8), np.float32), encoding)
    wanted = -1 / np.sqrt(8) if encoding == "sign" else 0
    np.testing.assert_allclose(found, np.full((2, 8), wanted), rtol=1e-3)


@pytest.mark.parametrize("encoding", ENCODINGS)
@pytest.mark.parametrize("shape", [(0, 8), (3, 0), (2, 0, 16), (0, 0)])
def test_arrays_without_values_keep_their_shape(encoding, shape):
    found = rounded(np.zeros(shape, np.float32), encoding)
    assert found.shape == shape


@pytest.mark.parametrize("dim", [8, 16, 128])
def test_dot_products_of_signs_are_hamming_distances(rng, dim):
    vectors = unit(rng, 12, dim)
    codes = encode(vectors, "sign")
    bits = np.unpackbits(codes.values, axis=1)
    hamming = (bits[:, None] != bits[None, :]).sum(axis=-1)
    decoded = decode(codes, "sign").astype(np.float64)
    np.testing.assert_allclose(decoded @ decoded.T, 1 - 2 * hamming / dim, atol=1e-3)
    np.testing.assert_array_equal(bits, vectors > 0)


@pytest.mark.parametrize("dim", [1, 7, 12])
def test_signs_need_whole_bytes(dim):
    with pytest.raises(UserError, match=rf"local_encoding = 'sign'.* 8 .* {dim}"):
        encode(np.zeros((2, dim), np.float32), "sign")


@pytest.mark.parametrize("encoding", ENCODINGS)
def test_each_vector_is_encoded_by_itself(rng, encoding):
    vectors = unit(rng, 6, 16)
    whole = encode(vectors, encoding)
    for number, vector in enumerate(vectors):
        alone = encode(vector, encoding)
        np.testing.assert_array_equal(alone.values, whole.values[number])
        if whole.scales is not None:
            assert alone.scales == whole.scales[number]


def test_signs_do_not_depend_on_length_and_int8_codes_not_on_powers_of_two(rng):
    vectors = unit(rng, 6, 16)
    np.testing.assert_array_equal(
        encode(3 * vectors, "sign").values, encode(vectors, "sign").values
    )
    codes, halves = encode(vectors, "int8"), encode(vectors / 2, "int8")
    np.testing.assert_array_equal(codes.values, halves.values)
    np.testing.assert_array_equal(codes.scales, 2 * halves.scales)


@pytest.mark.parametrize("encoding", ["float32", "float16", "sign"])
def test_decoded_values_are_encoded_to_the_same_codes(rng, encoding):
    once = rounded(unit(rng, 5, 24), encoding)
    np.testing.assert_array_equal(rounded(once, encoding), once)


def test_decoding_by_hand():
    codes = Codes(np.array([[2, -4], [127, 0]], np.int8), np.array([0.5, 2.0], np.float16))
    assert decode(codes, "int8").tolist() == [[1.0, -2.0], [254.0, 0.0]]
    packed = Codes(np.array([0b11110000], np.uint8), None)
    unit = float(np.float16(8**-0.5))
    assert decode(packed, "sign").tolist() == [unit] * 4 + [-unit] * 4
